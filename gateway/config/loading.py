"""Find, read and check a config, and gather all that is wrong with it before saying so.

A value that is refused is taken out and the rest looked at again as if it had not been given, so that checks across
sections still run; what builds on a refused value is not complained about.
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
    """Read the config from `path`, else from the file that `GATEWAY_CONFIG` names, else from `./config.toml`.

    Raises `ConfigError` with everything that is wrong. The result has its secrets resolved;
    without `serving`, for the command line beside the service, those that only the service needs may be missing.
    """
    return from_mapping(_read(find(path, environ)), environ, serving=serving)


def find(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file to read. Raises `ConfigError` if none is named and the default one does not exist."""
    if path is not None:
        return path
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    if DEFAULT_FILE.exists():
        return DEFAULT_FILE
    message = f"no config: give --config FILE, set {FILE_VARIABLE}, or put a {DEFAULT_FILE} here"
    raise ConfigError([Problem("", f"{message} (config.example.toml is one to begin with)")])


def from_mapping(data: Mapping[str, Any], environ: Mapping[str, str], *, serving: bool = True) -> Config:
    """Make a config of what TOML says. Raises `ConfigError` with everything that is wrong."""
    report = Report()
    config = _validated(copy.deepcopy(dict(data)), report)
    if config is not None:
        config = checks.resolve(config, environ, report, serving=serving)
        checks.compare(config, report)
    problems = report.problems(_SECTIONS)
    if problems or config is None:
        raise ConfigError(problems or [Problem("", "this is no config")])
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
        raise ConfigError([Problem(str(path), f"line {line}: not UTF-8, as TOML has to be")]) from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError([Problem(str(path), _syntax(str(problem)))]) from None
    except (ValueError, ArithmeticError, RecursionError):
        raise ConfigError([Problem(str(path), "not TOML: a number or a nesting in it is out of all bounds")]) from None


def _syntax(message: str) -> str:
    """Turn "Invalid value (at line 3, column 5)" about: the line first, for editors and eyes."""
    what, found, where = message.rpartition(" (at ")
    if not found:
        return f"not TOML: {message}"
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


class _Marked:
    """Stands where a refused item of a list was, until all of them are taken out together."""


_MARK: Final = _Marked()


def _mend(data: dict[str, Any], location: Location, *, missing: bool) -> None:
    """Take a refused value out, or put something in where one is missing, so that the rest can be looked at."""
    holder: Any = data
    for part in location[:-1]:
        holder = holder[part]
    last = location[-1]
    if missing:
        number = next((part for part in location if isinstance(part, int)), 0)
        # Names that cannot be meant: they clash with nothing.
        holder[last] = {"name": f"unnamed-{number}", "model": "unnamed/unnamed"}.get(str(last), "never")
    elif isinstance(last, str):
        # An error at one place may come twice (a float that is also out of range).
        holder.pop(last, None)
    elif location[-2] in ("teams", "keys", "rules", "models") and _holds_tables(location):
        holder[last] = {}  # the places of its neighbours stay as they are written
    else:
        holder[last] = _MARK


def _holds_tables(location: Location) -> bool:
    return location[:-1] in (("teams",), ("cache", "rules"), ("prices", "models")) or location[-2] == "keys"


def _drop_marked(value: Any) -> None:
    match value:
        case dict():
            for item in value.values():
                _drop_marked(item)
        case list():
            value[:] = [item for item in value if item is not _MARK]
            for item in value:
                _drop_marked(item)
