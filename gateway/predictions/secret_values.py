"""Secret values of the runs in progress, in memory only.

Replicate redacts secret inputs in its answers (docs/replicate-api.md, Secret inputs), but a model can quote a value in
its error or its logs. What is recorded, logged and shown has the redaction text there instead. After a restart the
values are gone, and nothing is struck out any more: no record of them exists.

While the schema is not known, any text can be secret. If such a run quotes a text of its input, its schema is read
first: upstream's answer names the model.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from gateway.domain import documents
from gateway.domain.documents import Snapshot
from gateway.domain.records import Kind, Run, Status
from gateway.domain.targets import Target, TargetKind, is_model_name
from gateway.models.rules import secrets
from gateway.models.schemas import SchemaService
from gateway.runtime.pauses import LARGE, off_the_loop


class SecretValues:
    """The secret values of runs, from the create to the end. Most runs have none."""

    def __init__(self, schemas: SchemaService | None = None) -> None:
        self._schemas = schemas
        self.by_run: dict[str, tuple[str, ...]] = {}
        """By the id of the run. Runs without secret values are absent."""
        self.suspects: dict[str, Mapping[str, Any]] = {}
        """Values that can be secret, by the id of a run whose schema is not known, and their names."""

    def keep(self, run_id: str, values: tuple[str, ...], suspects: Mapping[str, Any]) -> None:
        """Remember the values of a run."""
        if values:
            self.by_run[run_id] = values
        if suspects:
            self.suspects[run_id] = suspects

    def strike(self, run_id: str, text: bytes) -> bytes:
        """Return a text about a run without the run's secret values."""
        values = self.by_run.get(run_id)
        return text if values is None else secrets.strike(text, values)

    async def read_snapshot(self, run: Run, body: bytes) -> Snapshot:
        """Read upstream's body of a run without the run's secret values. Raise `ValueError` if it is no prediction."""
        try:
            read = partial(documents.read_snapshot, body)
            snapshot = read() if len(body) <= LARGE else await off_the_loop(body, read)
        except ValueError as exc:
            raise ValueError(str(self.strike(run.id, str(exc).encode(errors="replace")), "utf-8")) from None
        return await self.strike_snapshot(run, snapshot)

    async def strike_snapshot(self, run: Run, snapshot: Snapshot) -> Snapshot:
        """Return what upstream says of a run without the run's secret values."""
        if (values := self.by_run.get(run.id)) is not None:
            document = await off_the_loop(
                snapshot.document, partial(secrets.strike_document, snapshot.document, values)
            )
            snapshot = msgspec.structs.replace(snapshot, document=document)
        return await self._strike_suspects(run, snapshot) if run.id in self.suspects else snapshot

    async def _strike_suspects(self, run: Run, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot of a run, whose schema was not known at its create, without its secret values.

        The schema is read if the run quotes a text of its input.
        """
        suspects = self.suspects.get(run.id)
        document = snapshot.document
        if suspects is None or not await off_the_loop(
            document, partial(secrets.are_quoted, document, secrets.suspected_texts(suspects))
        ):
            return snapshot
        schema = None
        if self._schemas is not None and snapshot.version and snapshot.model and is_model_name(snapshot.model):
            target = Target(TargetKind.VERSION, snapshot.model, snapshot.version)
            schema = (await self._schemas.describe(target)).schema
        if schema is not None:
            marked = schema.training_secrets if run.kind is Kind.TRAINING else schema.secrets
            values = secrets.redact(msgspec.json.encode(suspects), marked).values
            self.suspects.pop(run.id, None)
            if values:
                self.by_run[run.id] = values
        else:
            # A failure is what quotes a bad secret. Logs often repeat a prompt.
            values = secrets.suspected_texts(suspects) if snapshot.status is Status.FAILED else ()
        struck = await off_the_loop(document, partial(secrets.strike_document, document, values))
        return msgspec.structs.replace(snapshot, document=struck)

    def of_stream(self, run_id: str) -> "StreamStriker | None":
        """Return what strikes a run's secret values from its events; `None` if it has none. Call before its end."""
        if run_id not in self.by_run and run_id not in self.suspects:
            return None
        return StreamStriker(self, run_id)

    def forget(self, run_id: str) -> None:
        """Forget the values of a run that has ended or was not created."""
        self.by_run.pop(run_id, None)
        self.suspects.pop(run_id, None)


class StreamStriker:
    """Strikes the secret values of one run from the data of its events, also from those that come after its end.

    A value that is divided among several events is not found.
    """

    def __init__(self, known: SecretValues, run_id: str) -> None:
        self._known = known
        self._run_id = run_id
        self._values: tuple[str, ...] = ()
        self._spelled: list[bytes] = []
        self._suspects: Mapping[str, Any] = {}
        self._refresh()

    def _refresh(self) -> None:
        known = self._known
        if self._run_id in known.by_run or self._run_id in known.suspects:
            values = known.by_run.get(self._run_id, ())
            if values is not self._values:
                self._values, self._spelled = values, secrets.spelled(values)
            self._suspects = known.suspects.get(self._run_id, {})

    def __call__(self, data: bytes, *, is_error: bool) -> bytes:
        """Return a line of data without secret values. An error is JSON, and can quote what is not known to be none."""
        self._refresh()
        if is_error:
            return secrets.strike_answer(data, (*self._values, *secrets.suspected_texts(self._suspects)))
        return secrets.strike_spelled(data, self._spelled)
