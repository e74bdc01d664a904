"""Find, read and validate a config, and report all of its problems at once.

An invalid value is removed and validation runs again without it, so that checks across sections still run. Checks that
depend on an invalid value are skipped.
"""

import copy
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gateway.config import checks
from gateway.config.model import Config
from gateway.config.problems import ConfigError, Location, Problem, Report, explain

FILE_VARIABLE: Final = "GATEWAY_CONFIG"
DEFAULT_FILE: Final = Path("config.toml")

_SECTIONS: Final = tuple(Config.model_fields)
_MOST_ROUNDS: Final = 20
_MOST_BYTES: Final = 4 * 1024 * 1024


def load(path: Path | None, environ: Mapping[str, str], *, serving: bool = True) -> Config:
    """Load the config from `path`, else from the file that `GATEWAY_CONFIG` names, else from `./config.toml`.

    Secrets are resolved. With `serving=False` (commands other than `serve`), secrets may be missing.
    Raises `ConfigError` with every problem.
    """
    return from_mapping(_read(find(path, environ)), environ, serving=serving)


def find(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file to load. Raises `ConfigError` if none is named and `./config.toml` does not exist."""
    if path is not None:
        return path
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    if DEFAULT_FILE.exists():
        return DEFAULT_FILE
    message = f"no config file: pass --config FILE, set {FILE_VARIABLE}, or create ./{DEFAULT_FILE}"
    raise ConfigError([Problem("", f"{message} (see config.example.toml)")])


def from_mapping(data: Mapping[str, Any], environ: Mapping[str, str], *, serving: bool = True) -> Config:
    """Validate parsed TOML and return the config. Raises `ConfigError` with every problem."""
    report = Report()
    config = _validated(copy.deepcopy(dict(data)), report)
    if config is not None:
        config = checks.resolve(config, environ, report, serving=serving)
        checks.compare(config, report)
    problems = report.problems(_SECTIONS)
    if problems or config is None:
        raise ConfigError(problems or [Problem("", "not a valid config")])
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError([Problem(str(path), f"larger than {_MOST_BYTES} bytes")])
        return tomllib.loads(content.decode(), parse_float=Decimal)
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise ConfigError([Problem(str(path), f"cannot be read: {reason}")]) from None
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise ConfigError([Problem(str(path), f"line {line}: not UTF-8, which TOML requires")]) from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError([Problem(str(path), _syntax(str(problem)))]) from None
    except (ValueError, ArithmeticError, RecursionError):
        raise ConfigError(
            [Problem(str(path), "invalid TOML: a number is too large or the nesting is too deep")]
        ) from None


def _syntax(message: str) -> str:
    """Put the position first: "Invalid value (at line 3, column 5)" becomes "line 3, column 5: invalid value"."""
    what, found, where = message.rpartition(" (at ")
    if not found:
        return f"invalid TOML: {message}"
    return f"{where.removesuffix(')')}: {what[:1].lower()}{what[1:]}"


def _validated(data: dict[str, Any], report: Report) -> Config | None:
    for _ in range(_MOST_ROUNDS):
        try:
            return Config.model_validate(data)
        except ValidationError as refusal:
            for error in refusal.errors(include_url=False):
                location: Location = error["loc"]
                message, meant = explain(error, Config)
                report.add_bad(location, message)
                if meant is not None:
                    report.mark((*location[:-1], meant))
                _mend(data, location, missing=error["type"] == "missing")
            _drop_marked(data)
    return None


class _Removed:
    """Placeholder for an invalid item of a list. Keeps the indexes of other items until all are dropped together."""


_REMOVED: Final = _Removed()


def _mend(data: dict[str, Any], location: Location, *, missing: bool) -> None:
    """Remove an invalid value, or insert a placeholder for a missing one, so that validation can go on."""
    holder: Any = data
    for part in location[:-1]:
        holder = holder[part]
    last = location[-1]
    if missing:
        number = next((part for part in location if isinstance(part, int)), 0)
        # Placeholders that conflict with no real name.
        holder[last] = {"name": f"unnamed-{number}", "model": "unnamed/unnamed"}.get(str(last), "never")
    elif isinstance(last, str):
        # One value may have several errors (a float that is also out of range).
        holder.pop(last, None)
    elif location[-2] in ("teams", "keys", "rules", "models") and _holds_tables(location):
        holder[last] = {}  # keeps the indexes of the other tables
    else:
        holder[last] = _REMOVED


def _holds_tables(location: Location) -> bool:
    return location[:-1] in (("teams",), ("cache", "rules"), ("prices", "models")) or location[-2] == "keys"


def _drop_marked(value: Any) -> None:
    match value:
        case dict():
            for item in value.values():
                _drop_marked(item)
        case list():
            value[:] = [item for item in value if item is not _REMOVED]
            for item in value:
                _drop_marked(item)
