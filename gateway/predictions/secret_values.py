"""Secret values of the runs in progress, in memory only.

Replicate redacts secret inputs in its answers (docs/replicate-api.md, Secret inputs), but a model can quote a value in
its error or its logs. What is recorded, logged and shown has the redaction text there instead. After a restart the
values are gone, and nothing is struck out any more: no record of them exists.
"""

from gateway.domain.run_end import RunEnded
from gateway.models.rules import secrets


class SecretValues:
    """The secret values of runs, from the create to the end."""

    def __init__(self) -> None:
        self._by_run: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._by_run)

    def keep(self, run_id: str, values: tuple[str, ...]) -> None:
        """Remember the values of a run."""
        if values:
            self._by_run[run_id] = values

    def strike(self, run_id: str, text: bytes) -> bytes:
        """Return a JSON text about a run without the run's secret values."""
        values = self._by_run.get(run_id)
        return text if values is None else secrets.strike(text, values)

    def forget(self, run_id: str) -> None:
        """Forget the values of a run that was not created."""
        self._by_run.pop(run_id, None)

    def on_run_ended(self, ended: RunEnded) -> None:
        """Forget the values of a run that has ended."""
        self.forget(ended.run.id)
