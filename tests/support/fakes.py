"""The ports of services, in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.access.rules.api_keys import is_valid
from gateway.domain.audit import Actor
from gateway.domain.cursors import Cursor
from gateway.domain.ledger import Settlement
from gateway.domain.ports.records import Files, KeyPlace, Keys, Versions
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import (
    Cancellation,
    File,
    Key,
    Kind,
    Page,
    Prediction,
    PredictionView,
    Run,
    RunState,
    Status,
)
from gateway.domain.run_end import RunEnded
from gateway.domain.upstream_response import Answer
from gateway.errors import Conflict, StoreUnavailable
from gateway.predictions.ports.predictions import AdvanceOutcome, Progressed, Recorded, Unchanged
from tests.support.observer import RecordingObserver
from tests.support.records import run_ended

FakeObserver = RecordingObserver

JSON: Mapping[str, str] = {"content-type": "application/json"}


def answer(status: int = 200, body: bytes = b"{}", **headers: str) -> Answer:
    """Make an answer of upstream."""
    return Answer(status, {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}, body)


@dataclass(frozen=True)
class Call:
    """One call upstream."""

    operation: str
    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    headers: Mapping[str, str] | None = None


Script = Callable[[Call], Answer | Awaitable[Answer]]


@dataclass
class FakeUpstream:
    """Answers as the test says, and remembers what it was asked."""

    script: Script = lambda _: answer()
    calls: list[Call] = field(default_factory=list)

    def count(self, operation: str) -> int:
        """Count the calls of an operation."""
        return sum(call.operation == operation for call in self.calls)

    async def _answer(self, call: Call) -> Answer:
        self.calls.append(call)
        said = self.script(call)
        return said if isinstance(said, Answer) else await said

    async def read(
        self,
        operation: str,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask for something."""
        return await self._answer(Call(operation, method, path, query, body, headers))

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Change something."""
        return await self._answer(Call(operation, method, path, "", body, headers))

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Send a body as it comes in."""
        content = b"".join([chunk async for chunk in body])
        return await self._answer(Call(operation, "POST", path, "", content, {"Content-Type": content_type}))


class FakeStore:
    """Keeps the promises of the ports in dictionaries. `trouble` is raised by every method while it is set."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.recent_failure: str | None = None
        self.is_shared = False
        self.calls: list[str] = []
        self.runs: dict[str, Run] = {}
        self.kept: dict[str, Prediction] = {}
        self.issued: dict[str, Key] = {}
        self.uses: dict[str, float] = {}
        self.uploaded: dict[str, File] = {}
        self.versions: dict[str, str] = {}
        self.secrets: dict[str, bytes] = {}
        self.settled: dict[str, Settlement | None] = {}

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if self.trouble is not None:
            raise self.trouble

    async def open(self, *, create: bool = True) -> bool:
        """Be there, and not new."""
        return False

    async def claim(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def ping(self) -> None:
        """Answer, or not."""
        self._note("ping")

    async def record_created(self, run: Run, prediction: Prediction, settlement: Settlement | None = None) -> Recorded:
        """Turn an intent into a run, and its placeholder into the starter."""
        self._note("record_created")
        if (intent := self.runs.get(run.id)) is not None:
            self.kept.pop(intent.leader_id, None)
        run = self.runs[run.id] = replace(run, leader_id=prediction.id)
        self.kept[prediction.id] = prediction
        if run.state is RunState.ENDED:
            self.settled[run.id] = settlement
        return Recorded(PredictionView(prediction, run), self._end(run.id) if run.state is RunState.ENDED else None)

    async def runs_to_cancel(self) -> list[Run]:
        """List live runs that nobody waits for any more."""
        self._note("runs_to_cancel")
        return [run for run in self.runs.values() if run.state is RunState.LIVE and run.cancel_asked_at is not None]

    async def create_outcome(self, run_id: str) -> bytes | None:
        """Nothing is known of discarded intents here."""
        self._note("create_outcome")
        return None

    async def discard_intent(self, run_id: str, outcome: bytes = b"") -> None:
        """Forget an intent."""
        self._note("discard_intent")
        self.runs.pop(run_id, None)

    async def advance(
        self,
        run_id: str,
        *,
        status: Status,
        document: bytes,
        stream_url: str | None,
        at: float,
        cache_until: float | None = None,
        settlement: Settlement | None = None,
    ) -> AdvanceOutcome:
        """Move a run forward, or do nothing."""
        self._note("advance")
        run = self.runs.get(run_id)
        if run is None or run.state is RunState.ENDED or status.rank < run.status.rank:
            return Unchanged()
        run = replace(run, status=status, document=document, stream_url=stream_url or run.stream_url)
        run = replace(run, unreadable_since=None)
        if not status.is_terminal:
            self.runs[run_id] = run
            return Progressed(run)
        self.runs[run_id] = replace(run, state=RunState.ENDED, ended_at=at, cache_until=cache_until)
        self.settled[run_id] = settlement
        return self._end(run_id)

    async def mark_unreadable(self, run_id: str, since: float | None) -> None:
        """Note since when a run cannot be read."""
        self._note("mark_unreadable")
        self.runs[run_id] = replace(self.runs[run_id], unreadable_since=since)

    async def ended_run(self, run_id: str) -> RunEnded | None:
        """Find the end of a run."""
        self._note("ended_run")
        run = self.runs.get(run_id)
        return self._end(run_id) if run is not None and run.state is RunState.ENDED else None

    def _end(self, run_id: str) -> RunEnded:
        run = self.runs[run_id]
        settlement = self.settled.get(run_id) or Settlement(at=run.ended_at or run.intended_at)
        return run_ended(run, *(p for p in self.kept.values() if p.run_id == run_id), settlement=settlement)

    async def run(self, run_id: str) -> Run | None:
        """Find a run."""
        self._note("run")
        return self.runs.get(run_id)

    async def runs_by_id(self, run_ids: Sequence[str], *, most_bytes: int) -> dict[str, Run]:
        """Find runs, without large documents."""
        self._note("runs_by_id")
        known = {each: self.runs[each] for each in run_ids if each in self.runs}
        return {
            run_id: run
            if len(run.document) + len(run.request) <= most_bytes
            else replace(run, document=b"", request=b"")
            for run_id, run in known.items()
        }

    async def predictions_of(self, run_id: str, *, limit: int = 10_000) -> list[Prediction]:
        """List the predictions of a run."""
        self._note("predictions_of")
        return [p for p in self.kept.values() if p.run_id == run_id][:limit]

    async def evict_cache(self, max_bytes: int, now: float, limit: int = 100) -> int:
        """Nothing is cached here."""
        self._note("evict_cache")
        return 0

    async def delete_expired_idempotency(self, before: float, limit: int) -> int:
        """No idempotency keys are kept here."""
        self._note("delete_expired_idempotency")
        return 0

    async def cancel(
        self, prediction_id: str, at: float, *, by_deadline: bool = False, is_repeated: bool = False
    ) -> Cancellation | None:
        """End a prediction for its caller."""
        self._note("cancel")
        prediction = self.kept.get(prediction_id)
        if prediction is None:
            return None
        run = self.runs[prediction.run_id]
        if is_repeated and prediction.canceled_at == at:
            return Cancellation(PredictionView(prediction, run), changed=True, is_last=run.cancel_asked_at == at)
        if prediction.canceled_at is not None or run.state is RunState.ENDED:
            return Cancellation(PredictionView(prediction, run), changed=False, is_last=False)
        prediction = self.kept[prediction_id] = replace(prediction, canceled_at=at)
        others = [p for p in self.kept.values() if p.run_id == run.id and p.canceled_at is None]
        if not others:
            run = self.runs[run.id] = replace(run, cancel_asked_at=at)
        return Cancellation(PredictionView(prediction, run), changed=True, is_last=not others)

    async def prediction(self, prediction_id: str, *, most_bytes: int | None = None) -> PredictionView | None:
        """Find a prediction."""
        self._note("prediction")
        prediction = self.kept.get(prediction_id)
        if prediction is None:
            return None
        view = PredictionView(prediction, self.runs[prediction.run_id])
        return view if most_bytes is None or view.size <= most_bytes else view.without_document()

    async def prediction_by_ticket(self, ticket_sha256: str) -> PredictionView | None:
        """Find a prediction by its ticket."""
        self._note("prediction_by_ticket")
        found = [p for p in self.kept.values() if p.ticket and p.ticket == ticket_sha256]
        return PredictionView(found[0], self.runs[found[0].run_id]) if found else None

    async def predictions(
        self,
        *,
        team: str | None,
        kind: Kind,
        limit: int,
        owner: str | None = None,
        max_bytes: int | None = None,
        position: Cursor | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
    ) -> Page:
        """List predictions; positions and filters are the contract suite's matter."""
        self._note("predictions")
        chosen = [p for p in self.kept.values() if team in (None, p.team) and p.kind is kind]
        chosen = [p for p in chosen if owner in (None, p.owner)]
        chosen.sort(key=lambda p: (p.created_at, p.id), reverse=True)
        return Page([PredictionView(p, self.runs[p.run_id]) for p in chosen[:limit]], False, len(chosen) > limit)

    async def owns_upstream_id(self, upstream_id: str) -> bool:
        """Say whether a run has this id."""
        self._note("owns_upstream_id")
        return any(run.upstream_id == upstream_id for run in self.runs.values())

    async def open_runs(self, *, after: str = "", limit: int = 500) -> list[Run]:
        """List what a restart takes up."""
        self._note("open_runs")
        open_ = [run for run in self.runs.values() if run.state in (RunState.INTENDED, RunState.LIVE)]
        return sorted((run for run in open_ if run.id > after), key=lambda run: run.id)[:limit]

    async def runs_to_clear(self, ended_before: float, now: float, limit: int) -> list[Run]:
        """List ended runs with data."""
        self._note("runs_to_clear")
        due = [r for r in self.runs.values() if r.ended_at is not None and r.ended_at < ended_before]
        return [run for run in due if not run.data_removed and (run.cache_until or 0.0) <= now][:limit]

    async def clear_data(self, run_id: str, document: bytes) -> None:
        """Take a run's data away."""
        self._note("clear_data")
        self.runs[run_id] = replace(self.runs[run_id], document=document, request=b"", data_removed=True)

    async def delete_records(self, created_before: float, limit: int) -> int:
        """Delete old predictions whose runs have ended."""
        self._note("delete_records")
        old = [
            p.id
            for p in self.kept.values()
            if p.created_at < created_before and self.runs[p.run_id].state is RunState.ENDED
        ][:limit]
        for prediction_id in old:
            del self.kept[prediction_id]
        return len(old)

    async def add_key(self, key: Key, *, actor: Actor, most: int | None = None, holder: Key | None = None) -> None:
        """Add a key."""
        self._note("add_key")
        self._check_holder(holder)
        if key.id in self.issued:
            raise Conflict("There is such a key.")
        self.issued[key.id] = key

    def _check_holder(self, holder: Key | None) -> None:
        if holder is not None and self.issued.get(holder.id) != holder:
            raise Conflict("Your key was changed meanwhile.")

    async def key(self, key_id: str) -> Key | None:
        """Find a key."""
        self._note("key")
        return self.issued.get(key_id)

    async def keys(self, team: str | None = None) -> list[Key]:
        """List keys."""
        self._note("keys")
        return [key for key in self.issued.values() if team in (None, key.team)]

    async def newest_keys(
        self, *, team: str | None, created_by: str | None = None, limit: int, older_than: KeyPlace | None = None
    ) -> list[Key]:
        """List keys, newest first."""
        self._note("newest_keys")
        found = [key for key in self.issued.values() if team in (None, key.team)]
        found = [key for key in found if created_by in (None, key.created_by)]
        found.sort(key=lambda key: (key.created_at, key.id), reverse=True)
        return [key for key in found if older_than is None or (key.created_at, key.id) < older_than][:limit]

    async def valid_keys_of(self, creator: str, now: float) -> int:
        """Count the valid keys of a creator."""
        self._note("valid_keys_of")
        return sum(key.created_by == creator and is_valid(key, now) for key in self.issued.values())

    async def change_key(
        self,
        key_id: str,
        team: str | None,
        change: Callable[[Key], Key],
        at: float,
        *,
        actor: Actor,
        holder: Key | None = None,
    ) -> Key | None:
        """Change a key."""
        self._note("change_key")
        self._check_holder(holder)
        known = self.issued.get(key_id)
        if known is None or team not in (None, known.team):
            return None
        self.issued[key_id] = change(known)
        return self.issued[key_id]

    async def use_keys(self, uses: Mapping[str, float]) -> None:
        """Remember when keys were used."""
        self._note("use_keys")
        self.uses.update(uses)

    async def key_uses(self, key_ids: Sequence[str]) -> dict[str, float]:
        """Say when keys were used."""
        self._note("key_uses")
        return {key_id: at for key_id, at in self.uses.items() if key_id in key_ids}

    async def delete_old_keys(self, before: float, limit: int) -> int:
        """Keep them."""
        self._note("delete_old_keys")
        return 0

    async def revoke_key(self, key_id: str, at: float, *, actor: Actor) -> Key | None:
        """Revoke a key."""
        self._note("revoke_key")
        if key_id in self.issued:
            self.issued[key_id] = replace(self.issued[key_id], revoked_at=at)
        return self.issued.get(key_id)

    async def rotate_key(
        self,
        key_id: str,
        successor: Key,
        expires_at: float,
        *,
        actor: Actor,
        most: int | None = None,
        holder: Key | None = None,
    ) -> Key | None:
        """Replace a key."""
        self._note("rotate_key")
        self._check_holder(holder)
        if key_id not in self.issued:
            return None
        self.issued[successor.id] = successor
        self.issued[key_id] = replace(self.issued[key_id], expires_at=expires_at)
        return self.issued[key_id]

    async def add_file(self, file: File) -> None:
        """Remember a file."""
        self._note("add_file")
        self.uploaded[file.id] = file

    async def file(self, file_id: str) -> File | None:
        """Find a file."""
        self._note("file")
        return self.uploaded.get(file_id)

    async def files_among(self, file_ids: Sequence[str]) -> list[File]:
        """Find those that are known."""
        self._note("files_among")
        return [self.uploaded[file_id] for file_id in dict.fromkeys(file_ids) if file_id in self.uploaded]

    async def files(
        self,
        *,
        team: str | None,
        limit: int,
        now: float,
        owner: str | None = None,
        position: Cursor | None = None,
        max_bytes: int | None = None,
    ) -> Page:
        """List files."""
        self._note("files")
        chosen = [f for f in self.uploaded.values() if team in (None, f.team) and f.expires_at > now]
        chosen = [f for f in chosen if owner in (None, f.owner)]
        return Page(chosen[:limit], False, len(chosen) > limit)

    async def has_file_of_size(self, team: str, smallest: int, largest: int, kept_at: float) -> bool:
        """Say whether there is one of such a size."""
        self._note("has_file_of_size")
        kept = [f for f in self.uploaded.values() if f.team == team and f.expires_at > kept_at]
        return any(smallest <= file.size <= largest for file in kept)

    async def files_of_content(self, team: str, sha256: str, kept_at: float, limit: int = 10) -> list[File]:
        """Find those of equal bytes."""
        self._note("files_of_content")
        kept = [f for f in self.uploaded.values() if f.team == team and f.expires_at > kept_at]
        return [file for file in kept if file.sha256 == sha256][:limit]

    async def share_file(self, file: File) -> bool:
        """Remember a file if another one stands for the same."""
        self._note("share_file")
        is_used = self._is_used(file.upstream_id)
        if is_used:
            self.uploaded[file.id] = file
        return is_used

    async def delete_file(self, file_id: str) -> bool:
        """Forget a file."""
        self._note("delete_file")
        file = self.uploaded.pop(file_id, None)
        return file is not None and not self._is_used(file.upstream_id)

    def _is_used(self, upstream_id: str) -> bool:
        return any(file.upstream_id == upstream_id for file in self.uploaded.values())

    async def delete_expired_files(self, before: float, limit: int) -> int:
        """Forget expired files."""
        self._note("delete_expired_files")
        old = [file.id for file in self.uploaded.values() if file.expires_at < before][:limit]
        for file_id in old:
            del self.uploaded[file_id]
        return len(old)

    async def learn_version(self, version: str, model: str) -> None:
        """Remember a version's model."""
        self._note("learn_version")
        self.versions.setdefault(version, model)

    async def model_of(self, version: str) -> str | None:
        """Name a version's model."""
        self._note("model_of")
        return self.versions.get(version)

    async def secret(self, name: str, proposal: bytes) -> bytes:
        """Return a secret."""
        self._note("secret")
        return self.secrets.setdefault(name, proposal)


def free(run: Run, status: Status, document: bytes, now: float) -> Settlement:
    """Settle a run at no cost."""
    return Settlement(at=now, reason=status)


AWAY = StoreUnavailable("The gateway's store did not answer in time.")

if TYPE_CHECKING:
    # Of sharing it has what these tests need; the real thing is tested on real stores.
    _files: type[Files] = FakeStore
    _keys: type[Keys] = FakeStore
    _versions: type[Versions] = FakeStore
    _upstream: type[Upstream] = FakeUpstream
