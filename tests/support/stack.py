"""A stack to test in: the simulator as upstream, and a gateway before it with two teams and an operator.

`start_upstream` and `start_gateway` are what everything else is made of; the fixtures `upstream` and `gateway` are they
with nothing changed.
"""

import contextlib
import secrets
import string
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from gateway.access.rules.api_keys import new_key
from gateway.app import GatewayHandle, running
from gateway.assembly.webhooks import ReceiverNetwork
from gateway.config import Config, from_mapping
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import Tracer
from gateway.domain.scopes import Scope
from gateway.simulator import Simulator, SimulatorSettings

QUICK = 20.0
TEAM_SCOPES = tuple(str(scope) for scope in Scope if scope is not Scope.ACCOUNT)
ALL_SCOPES = tuple(str(scope) for scope in Scope)

_TEAMS: dict[str, dict[str, Any]] = {
    "alpha": {"scopes": TEAM_SCOPES},
    "beta": {"scopes": TEAM_SCOPES},
    "operator": {"scopes": ALL_SCOPES},
}


def new_token() -> str:
    """Make a token for the account, unlike any other, so that it can be searched for afterwards."""
    return "r8_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(37))


@contextlib.asynccontextmanager
async def start_upstream(**settings: Any) -> AsyncIterator[Simulator]:
    """Start a simulator that is quick and takes one fresh token. `settings` are those of `SimulatorSettings`."""
    chosen = {"speed": QUICK, "tokens": (new_token(),)} | settings
    async with Simulator(SimulatorSettings(**chosen)) as simulator:
        yield simulator


@dataclass(frozen=True)
class Stack:
    """A gateway that runs, and what is needed to call it. Keys go by their team, or `team.key` if not `default`."""

    running: GatewayHandle
    upstream: Simulator
    keys: Mapping[str, str]
    config: Config
    database: Path

    @property
    def base_url(self) -> str:
        """The base for clients, with `/v1`."""
        return self.running.base_url

    @property
    def origin(self) -> str:
        """The same without `/v1`."""
        return self.running.origin

    @property
    def ops_url(self) -> str:
        """Where metrics, dashboard and admin are."""
        return self.running.ops_url

    def caller(self, key: str = "alpha", **headers: str) -> aiohttp.ClientSession:
        """Return a session that calls with a team's key; to be closed by its user. Paths are below the origin."""
        return aiohttp.ClientSession(self.origin, headers={"Authorization": f"Bearer {self.keys[key]}", **headers})


def house_config(
    upstream: Simulator, folder: Path, keys: Mapping[str, str] | None = None, /, **overrides: Any
) -> tuple[Config, dict[str, str]]:
    """Make the config of a stack and its keys.

    An override is a section by its name, merged over the stack's own; `teams` maps names to what a team has more or
    other than the stack gives it. A team's `keys` are beside its key `default`, each given by name, without a secret:
    fresh ones are made unless `keys` has them already.
    """
    known = dict(keys or {})
    environ = {"REPLICATE_API_TOKEN": upstream.token}
    teams = []
    wanted: Mapping[str, Mapping[str, Any]] = overrides.pop("teams", {})
    for name in dict.fromkeys((*_TEAMS, *wanted)):
        team = {"name": name} | _TEAMS.get(name, {}) | dict(wanted.get(name, {}))
        issued = []
        for key in ({"name": "default"}, *team.get("keys", ())):
            label = name if key["name"] == "default" else f"{name}.{key['name']}"
            variable = "KEY_" + "".join(letter if letter.isalnum() else "_" for letter in label).upper()
            environ[variable] = known.setdefault(label, new_key(secrets.token_bytes).key)
            issued.append({**key, "key_env": variable})
        teams.append(team | {"keys": issued})
    data: dict[str, Any] = {
        "server": {"port": 0},
        "ops": {"port": 0},
        "upstream": {"base_url": upstream.base_url},
        "store": {"url": f"sqlite:///{folder / 'gateway.db'}"},
        "teams": teams,
    }
    for section, values in overrides.items():
        data[section] = data.get(section, {}) | values
    return from_mapping(_plain(data), environ), known


@contextlib.asynccontextmanager
async def start_gateway(
    upstream: Simulator,
    folder: Path,
    /,
    *,
    clock: Clock | None = None,
    keys: Mapping[str, str] | None = None,
    network: ReceiverNetwork | None = None,
    tracer: Tracer | None = None,
    reread: Callable[[], Config] | None = None,
    **overrides: Any,
) -> AsyncIterator[Stack]:
    """Start a gateway before a simulator, its store in `folder`. With the `keys` of one before, it takes its place.

    `reread` gives the config that a reload finds.
    """
    config, known = house_config(upstream, folder, keys, **overrides)
    async with running(config, clock=clock, receiver_network=network, tracer=tracer, reread=reread) as gateway:
        yield Stack(gateway, upstream, known, config, folder / "gateway.db")


def _plain(value: Any) -> Any:
    """Turn tuples into the lists that TOML would give."""
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value
