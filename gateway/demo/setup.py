"""The demo's ports, keys and config. With `--data` they are the same at each start."""

import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gateway.access.rules import api_keys

POOR_TEAM: Final = "trial"
"""A team whose budget is too small for an image."""
KEYS_FILE: Final = "keys.json"
TOKEN_FILE: Final = "replicate_token"  # noqa: S105 - a name
_LAST_PORT: Final = 65535
# What Next.js, Create React App, Vite, Angular, Astro, Django and Jupyter listen on.
_DEVELOPMENT_PORTS: Final = (3000, 3001, 4173, 4200, 4321, 5000, 5173, 5174, 8000, 8888)
_BUDGETS: Final = {"studio": (5.0, 50.0), "lab": (1.0, 10.0), POOR_TEAM: (0.002, 0.02)}


class Ports(NamedTuple):
    """Ports of the parts beside the gateway. 0: a free one."""

    page: int
    usage: int
    simulator: int
    delivery: int


class Place(NamedTuple):
    """What the config depends on."""

    folder: Path
    port: int
    usage_port: int
    origins: Sequence[str]


def choose_ports(port: int, host: str) -> Ports:
    """Return the ports after the gateway's, with 0 in place of each that is in use."""
    if port == 0:
        return Ports(0, 0, 0, 0)
    return Ports(
        *(wanted if wanted <= _LAST_PORT and _is_free(host, wanted) else 0 for wanted in range(port + 1, port + 5))
    )


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def development_origins() -> tuple[str, ...]:
    """Return the origins of web pages that are developed on this machine."""
    return tuple(f"http://{name}:{port}" for name in ("localhost", "127.0.0.1") for port in _DEVELOPMENT_PORTS)


def load_keys(folder: Path, teams: Sequence[str]) -> dict[str, str]:
    """Return the key of each team: those in the folder, else new ones, which are written there."""
    path = folder / KEYS_FILE
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    known = json.loads(path.read_text()) if path.exists() else {}
    found = {team: known.get(team) or api_keys.new_key(secrets.token_bytes).key for team in teams}
    if found != known:
        path.write_text(json.dumps(found, indent=2) + "\n")
    return found


def config_text(place: Place, upstream: str, host: str, keys: Mapping[str, str]) -> str:
    """Return the config as TOML. It has digests of the keys, not the keys."""
    folder = place.folder.resolve()
    lines = [
        "# Written by `gateway demo` at each start. Stop the demo before you edit the data beside it.",
        *_section("server", host=host, port=place.port, shutdown_grace_seconds=1),
        *_section("ops", host=host, port=place.usage_port),
        *_section("upstream", base_url=upstream, token_file=str(folder / TOKEN_FILE)),
        *_section("store", url=f"sqlite:///{folder / 'gateway.db'}"),
        *_section("outputs", url=str(folder / "outputs")),
        "# Receivers for trying webhooks are on this machine.",
        *_section("webhooks", allow_http=True, allow_private_addresses=True),
        *_section("logs", level="warning"),
    ]
    for team, key in keys.items():
        day, month = _BUDGETS[team]
        lines += ["[[teams]]", f"name = {json.dumps(team)}", 'scopes = ["read", "predict", "files", "tokens"]']
        lines += [f"origins = {json.dumps(list(place.origins))}"]
        lines += [f"budget_usd_per_day = {day}", f"budget_usd_per_month = {month}"]
        lines += [f'keys = [{{ name = "demo", sha256 = "{api_keys.digest(key)}" }}]', ""]
    return "\n".join(lines)


def _section(name: str, **values: object) -> list[str]:
    return [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
