"""Resolve settings that name a secret, and report each secret that cannot be read."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.config.positions import Location
from gateway.config.report import Report
from gateway.config.secrets import SecretMissing, from_environment, from_file


class SecretSettings:
    """Reads what settings name. With `serving=False` (commands other than `serve`), a missing secret is no problem."""

    def __init__(self, environ: Mapping[str, str], report: Report, *, serving: bool) -> None:
        self._environ = environ
        self._report = report
        self._serving = serving

    def in_variable(self, location: Location, name: str | None) -> str | None:
        """Return the secret in an environment variable; `None` if the setting names none, or it cannot be read."""
        return self._fetch(location, lambda: from_environment(name, self._environ)) if name else None

    def in_file_or_variable(
        self, table: Location, secret: str, *, name: str | None, path: Path | None, is_name_given: bool
    ) -> str | None:
        """Return the secret that `<secret>_file` or else `<secret>_env` of a table names. Report it if both do."""
        by_env, by_file = (*table, f"{secret}_env"), (*table, f"{secret}_file")
        if path is None:
            return self.in_variable(by_env, name)
        if is_name_given:
            self._report.add(by_file, f"{secret}_env is given too; remove one of them", uses=[by_env])
        return self._fetch(by_file, lambda: from_file(path))

    def _fetch(self, location: Location, read: Callable[[], str]) -> str | None:
        if self._report.is_bad(location):
            return None
        try:
            return read()
        except SecretMissing as missing:
            if self._serving:
                self._report.add_bad(location, str(missing))
            return None
