"""Recent errors for the console: refused requests and failed runs, each with its explanation.

Kept in memory only, no longer than upstream keeps the data that an error can quote. The number is limited per team, so
that a team with many errors, or an attacker who tries keys, does not displace the errors of other teams.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from gateway.domain import documents
from gateway.domain.ports.clock import Clock
from gateway.domain.records import Status
from gateway.domain.run_end import RunEnded
from gateway.domain.teams import Teams
from gateway.operations.refused_origins import RefusedOrigins
from gateway.operations.rules.dashboard_view import RecentError
from gateway.operations.settings import RetentionSettings
from gateway.runtime.live import LiveSettings

PER_TEAM = 50
LONGEST_DETAIL = 300
_HIDDEN = "Not shown: it can quote the input ([console] show_data)."


class _Ended(msgspec.Struct):
    error: str | None = None


_decode = msgspec.json.Decoder(_Ended).decode


class RecentErrors:
    """The recent errors of each team."""

    def __init__(
        self,
        teams: LiveSettings[Teams],
        clock: Clock,
        settings: LiveSettings[RetentionSettings],
        *,
        shows_data: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take `shows_data`, which says whether operators may see inputs and outputs."""
        self._shows_data = shows_data
        self._clock = clock
        self.refused_origins = RefusedOrigins(clock)
        self._settings = settings
        self._rings: dict[str | None, deque[RecentError]] = {}
        self._apply(teams.value)
        teams.subscribe(self._apply)

    def _apply(self, teams: Teams) -> None:
        # Errors of callers without a known team share one ring. Teams that are still in the config keep theirs.
        names = (*teams, None)
        self._rings = {team: self._rings.get(team, deque(maxlen=PER_TEAM)) for team in names}

    def note(
        self,
        team: str | None,
        what: str,
        detail: str,
        prediction: str | None = None,
        *,
        is_upstreams: bool = False,
        key: str | None = None,
        user: str | None = None,
        target: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Record an error of a caller, with what is known of its request."""
        error = RecentError(
            at=self._clock.now(),
            team=team,
            what=what,
            detail=detail[:LONGEST_DETAIL],
            prediction=prediction,
            is_upstreams=is_upstreams,
            key=key,
            user=user,
            target=target,
            request_id=request_id,
        )
        self._rings.get(team, self._rings[None]).append(error)

    def on_run_ended(self, ended: RunEnded) -> None:
        """Remember a run that has failed, for the team that started it."""
        run = ended.run
        if run.status is Status.FAILED:
            leader, reason = run.leader_id or None, _error_of(run.document)
            self.note(run.team, "failed", reason, leader, is_upstreams=True, target=run.target)

    def newest(self, team: str | None, limit: int) -> tuple[RecentError, ...]:
        """Return the most recent errors of a team, or of everybody (`None`), newest first."""
        since = self._clock.now() - self._settings.value.retain_data_seconds
        rings = self._rings.values() if team is None else [self._rings.get(team, deque())]
        for ring in rings:
            while ring and ring[0].at < since:
                ring.popleft()
        found = sorted((each for ring in rings for each in ring), key=lambda each: each.at, reverse=True)
        shown = found[:limit]
        return tuple(shown if self._shows_data() else map(_without_data, shown))


def _without_data(error: RecentError) -> RecentError:
    return msgspec.structs.replace(error, detail=_HIDDEN) if error.is_upstreams else error


def _error_of(document: bytes) -> str:
    try:
        error = _decode(documents.part(document, "error")).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = None
    return error or "Replicate gave no reason."
