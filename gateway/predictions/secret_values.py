"""Secret values of the runs in progress, in memory only.

Replicate redacts secret inputs in its answers (docs/replicate-api.md, Secret inputs), but a model can quote a value in
its error or its logs. What is recorded, logged and shown has the redaction text there instead. After a restart the
values are gone, and nothing is struck out any more: no record of them exists.
"""

from gateway.models.rules import secrets


class SecretValues:
    """The secret values of runs, from the create to the end. Most runs have none."""

    def __init__(self) -> None:
        self.by_run: dict[str, tuple[str, ...]] = {}
        """By the id of the run. Runs without secret values are absent."""

    def strike(self, run_id: str, text: bytes) -> bytes:
        """Return a JSON text about a run without the run's secret values."""
        values = self.by_run.get(run_id)
        return text if values is None else secrets.strike(text, values)

    def forget(self, run_id: str) -> None:
        """Forget the values of a run that has ended or was not created."""
        self.by_run.pop(run_id, None)
