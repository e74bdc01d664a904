"""Usage and limits as callers and operators can read them."""

from collections.abc import Mapping

from gateway.domain import quota
from gateway.domain.ledger import By, Grouping
from gateway.domain.limits import OWN_OF_PAGES, SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Keys
from gateway.domain.quota import RunLimits
from gateway.domain.tags import NONE
from gateway.domain.teams import Caller
from gateway.money.limit_queue import run_limits_of
from gateway.money.ports import Ledger
from gateway.money.rules import refusals, reports

MOST_ROWS = 10_000
"""Maximum number of rows per response. The total always covers all rows."""


class UsageService:
    """Reports usage from the ledger's sums, and the state of limits from its counters."""

    def __init__(self, ledger: Ledger, keys: Keys, clock: Clock) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock

    async def usage(self, team: str | None, by: By | Grouping, since: int, until: int) -> Mapping[str, object]:
        """Return the usage of a team, or of all teams, from day `since` to day `until`, both included."""
        grouping = by if isinstance(by, Grouping) else Grouping(by)
        by, tag = grouping.by, grouping.tag
        rows = await self._ledger.usage(by, since=since, until=until, team=team, tag=tag, limit=MOST_ROWS)
        sums = rows if by is By.TEAM else await self._ledger.usage(By.TEAM, since=since, until=until, team=team)
        names = {key.id: key.name for key in await self._keys.keys(team)} if by is By.KEY else {}
        return reports.usage(rows, reports.total_of(sums), grouping, since, until, key_names=names)

    async def limits(
        self, caller: Caller, user: str | None, address: str | None = None, tagged: str = NONE
    ) -> list[dict[str, object]]:
        """Return the state of every limit on runs that applies to a caller, its user, its address and cost tags.

        Publishable keys and browser tokens see the limits of their user, address and token only.
        """
        now = self._clock.now()
        allowances = [each for each in run_limits_of(caller, user, address, tagged) if _may_see(caller, each)]
        meters = await self._ledger.meters([each.scope for each in allowances], now)
        return [refusals.shown(status) for status in quota.statuses(allowances, meters, now)]


def _may_see(caller: Caller, allowance: RunLimits) -> bool:
    if not caller.is_public or allowance.of in OWN_OF_PAGES:
        return True
    return caller.token_id is not None and allowance.scope == quota.scope(SubjectKind.KEY, caller.counted_as)
