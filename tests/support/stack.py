"""The simulator as upstream, and a gateway in front of it with two teams and an operator.

The fixtures `upstream` and `gateway` are `start_upstream` and `start_gateway` with their defaults.
"""

import contextlib
import secrets
import string
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
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
from gateway.nodes.membership import LeaseTimes
from gateway.simulator import Simulator, SimulatorSettings
from tests.support.empty_store import put_empty_store

QUICK = 20.0
_STORE = "gateway.db"
TEAM_SCOPES = tuple(str(scope) for scope in Scope if scope is not Scope.ACCOUNT)
ALL_SCOPES = tuple(str(scope) for scope in Scope)

_TEAMS: dict[str, dict[str, Any]] = {
    "alpha": {"scopes": TEAM_SCOPES},
    "beta": {"scopes": TEAM_SCOPES},
    "operator": {"scopes": ALL_SCOPES},
}


def new_token() -> str:
    """Make a unique token for the account, so that tests can search for it."""
    return "r8_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(37))


@contextlib.asynccontextmanager
async def start_upstream(**settings: Any) -> AsyncIterator[Simulator]:
    """Start a fast simulator that accepts one fresh token. `settings` are those of `SimulatorSettings`."""
    chosen: dict[str, Any] = {"speed": QUICK, "tokens": (new_token(),)} | settings
    async with Simulator(SimulatorSettings(**chosen)) as simulator:
        yield simulator


@dataclass(frozen=True)
class Stack:
    """A running gateway, and what is needed to call it. Keys are named by team, or `team.key` if not `default`."""

    running: GatewayHandle
    upstream: Simulator
    keys: Mapping[str, str]
    config: Config
    database: Path

    @property
    def base_url(self) -> str:
        """The base URL for clients, with `/v1`."""
        return self.running.base_url

    @property
    def origin(self) -> str:
        """The same without `/v1`."""
        return self.running.origin

    @property
    def ops_url(self) -> str:
        """The ops listener: metrics, dashboard and admin."""
        return self.running.ops_url

    def caller(self, key: str = "alpha", **headers: str) -> aiohttp.ClientSession:
        """Return a session with a team's key, which the caller closes. Paths are relative to the origin."""
        return aiohttp.ClientSession(self.origin, headers={"Authorization": f"Bearer {self.keys[key]}", **headers})


def stack_config(
    upstream: Simulator, folder: Path, keys: Mapping[str, str] | None = None, /, **overrides: Any
) -> tuple[Config, dict[str, str]]:
    """Return the config of a stack and its keys.

    An override is a section by its name, merged over the default one; `teams` maps names to settings that are merged
    over the team's defaults. A team's `keys` are in addition to its key `default`, each given by name:
    new secrets are made unless `keys` has them already.
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
        "store": {"url": f"sqlite:///{folder / _STORE}"},
        "teams": teams,
    }
    for section, values in overrides.items():
        data[section] = list(values) if isinstance(values, list | tuple) else data.get(section, {}) | values
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
    lease_times: LeaseTimes | None = None,
    **overrides: Any,
) -> AsyncIterator[Stack]:
    """Start a gateway in front of a simulator, with its store in `folder`.

    `keys` are those of an earlier gateway on the same folder, for restarts. `reread` returns the config that a reload
    loads.
    """
    config, known = stack_config(upstream, folder, keys, **overrides)
    if config.store.url == f"sqlite:///{folder / _STORE}":
        put_empty_store(folder / _STORE)
    async with running(
        config, clock=clock, receiver_network=network, tracer=tracer, reread=reread, lease_times=lease_times
    ) as gateway:
        yield Stack(gateway, upstream, known, config, folder / _STORE)


def _plain(value: Any) -> Any:
    """Convert tuples to lists, as TOML has them."""
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value


OpenGateway = Callable[..., AbstractAsyncContextManager[Stack]]
