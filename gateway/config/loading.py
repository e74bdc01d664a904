"""Find, read and validate a config, and report all of its problems at once.

An invalid value is removed and validation runs again without it, so that checks across sections still run. Checks that
depend on an invalid value are skipped.
"""

import copy
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gateway.config import checks
from gateway.config.environment import PREFIX, Overrides, apply, read_overrides
from gateway.config.model import Config
from gateway.config.positions import Location
from gateway.config.problems import ConfigError, Problem, explain
from gateway.config.report import Places, Report
from gateway.config.syntax import explain_syntax

FILE_VARIABLE: Final = "GATEWAY_CONFIG"
DEFAULT_FILE: Final = Path("config.toml")

_SECTIONS: Final = tuple(Config.model_fields)
_MOST_ROUNDS: Final = 20
_MOST_BYTES: Final = 4 * 1024 * 1024


def load(path: Path | None, environ: Mapping[str, str], *, serving: bool = True) -> Config:
    """Load the config from `path`, else from the file that `GATEWAY_CONFIG` names, else from `./config.toml`.

    Environment variables override the file, and secrets are resolved. With `serving=False` (commands other than
    `serve`), secrets may be missing. Raises `ConfigError` with every problem.
    """
    return load_with_places(path, environ, serving=serving)[0]


def load_with_places(
    path: Path | None, environ: Mapping[str, str], *, serving: bool = True
) -> tuple[Config, Places, list[Problem]]:
    """Load the config like `load`. Also return the places of its settings, and notes on what the environment replaces.

    Raises `ConfigError` with every problem.
    """
    file = find(path, environ)
    text = _read(file)
    data = _parse(file, text)
    config = from_mapping(data, environ, serving=serving, file=str(file), text=text)
    overrides = read_overrides(environ)
    notes = list(_replaced(data, overrides, Places(str(file), text, data)))
    return config, Places(str(file), text, data, overrides.variables), notes


def wants_json_logs(path: Path | None, environ: Mapping[str, str]) -> bool:
    """Return whether logs are to be JSON, as far as an invalid config shows."""
    with suppress(ConfigError):
        data = _parse(file := find(path, environ), _read(file))
        apply(data, read_overrides(environ))
        section = data.get("logs")
        return isinstance(section, dict) and section.get("format") == "json"
    return environ.get(f"{PREFIX}LOGS__FORMAT") == "json"


def find(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file to load. Raises `ConfigError` if none is named and `./config.toml` does not exist."""
    if path is not None:
        return path
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    if DEFAULT_FILE.exists():
        return DEFAULT_FILE
    message = f"no config file: pass --config FILE, set {FILE_VARIABLE}, or create ./{DEFAULT_FILE}"
    raise ConfigError([Problem("", f"{message} (`gateway config init` writes one)")])


def from_mapping(
    data: Mapping[str, Any], environ: Mapping[str, str], *, serving: bool = True, file: str = "", text: str = ""
) -> Config:
    """Validate parsed TOML, with the overrides of the environment, and return the config.

    With `file` and `text`, its name and content, problems have line numbers. Raises `ConfigError` with every problem.
    """
    overrides = read_overrides(environ)
    report = Report(Places(file, text, data, overrides.variables))
    merged = copy.deepcopy(dict(data))
    apply(merged, overrides)
    config = _validated(merged, report)
    if config is not None:
        config = checks.resolve(config, environ, report, serving=serving)
        checks.compare(config, report)
    problems = [*overrides.problems, *report.problems(_SECTIONS)]
    if problems or config is None:
        raise ConfigError(problems or [Problem("", "not a valid config")])
    return config


def _replaced(data: Mapping[str, Any], overrides: Overrides, places: Places) -> Iterator[Problem]:
    """Yield a note for each setting of the file that the environment replaces by another value."""
    for location, variable in overrides.variables.items():
        section, key = location
        table = data.get(str(section))
        if isinstance(table, dict) and key in table and table[key] != overrides.values[location]:
            yield places.problem(location, f"is replaced by the environment variable {variable}")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError([Problem(str(path), f"larger than {_MOST_BYTES} bytes")])
        return content.decode().replace("\r\n", "\n")
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise ConfigError([Problem(str(path), f"cannot be read: {reason}")]) from None
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise ConfigError([Problem("", "not UTF-8, which TOML requires", f"{path}:{line}")]) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as problem:
        line, message = explain_syntax(str(problem), text)
        raise ConfigError([Problem("", message, str(path) if line is None else f"{path}:{line}")]) from None
    except (ValueError, ArithmeticError, RecursionError):
        raise ConfigError(
            [Problem(str(path), "invalid TOML: a number is too large or the nesting is too deep")]
        ) from None


def _validated(data: dict[str, Any], report: Report) -> Config | None:
    for _ in range(_MOST_ROUNDS):
        try:
            return Config.model_validate(data)
        except ValidationError as refusal:
            for error in refusal.errors(include_url=False):
                location: Location = error["loc"]
                if location[-1:] == ("[key]",):
                    # The name of an entry is wrong, not what is in it.
                    location = location[:-1]
                message, meant = explain(error, Config)
                report.add_bad(location, message)
                if meant is not None:
                    report.mark((*location[:-1], meant))
                _repair(data, location, missing=error["type"] == "missing")
            _drop_marked(data)
    return None


class _Removed:
    """Placeholder for an invalid item of a list. Keeps the indexes of other items until all are dropped together."""


_REMOVED: Final = _Removed()


def _repair(data: dict[str, Any], location: Location, *, missing: bool) -> None:
    """Remove an invalid value, or insert a placeholder for a missing one, so that validation can go on."""
    holder: Any = data
    for part in location[:-1]:
        holder = holder[part]
    last = location[-1]
    if missing:
        number = next((part for part in location if isinstance(part, int)), 0)
        # Placeholders that conflict with no real name.
        if location[0] == "aliases":
            holder[last] = f"unnamed/{last}-{number}"
            return
        placeholders = {
            "name": f"unnamed-{number}",
            "model": "unnamed/unnamed",
            "issuer": f"https://unnamed-{number}.invalid",
        }
        holder[last] = placeholders.get(str(last), "never")
    elif isinstance(last, str):
        # One value may have several errors (a float that is also out of range).
        holder.pop(last, None)
    elif location[-2] in ("teams", "keys", "rules", "models", "aliases", "issuers") and _holds_tables(location):
        holder[last] = {}  # keeps the indexes of the other tables
    else:
        holder[last] = _REMOVED


def _holds_tables(location: Location) -> bool:
    return (
        location[:-1] in (("teams",), ("aliases",), ("issuers",), ("cache", "rules"), ("prices", "models"))
        or location[-2] == "keys"
    )


def _drop_marked(value: Any) -> None:
    match value:
        case dict():
            for item in value.values():
                _drop_marked(item)
        case list():
            value[:] = [item for item in value if item is not _REMOVED]
            for item in value:
                _drop_marked(item)
