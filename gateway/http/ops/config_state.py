"""`GET /admin/config`: since when the config counts that counts, and what became of the last try to read it anew."""

import msgspec
from aiohttp import web

from gateway.domain import times


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try to read the config anew."""

    at: float
    is_taken: bool
    problems: tuple[tuple[str, str], ...] = ()
    """Where, and what: why nothing was changed."""
    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    """What the file says and the process does not do until it is started anew."""


class ConfigState(msgspec.Struct):
    """The state of the config. Written by whoever reloads it."""

    loaded_at: float
    last: Attempt | None = None


CONFIG_STATE = web.AppKey("config_state", ConfigState)


async def show_config(request: web.Request) -> web.Response:
    """Tell it without a value of the config: paths only."""
    state = request.app[CONFIG_STATE]
    answer = {"loaded_at": times.render(state.loaded_at), "last_reload": _shown(state.last)}
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def _shown(last: Attempt | None) -> dict[str, object] | None:
    if last is None:
        return None
    return {
        "at": times.render(last.at),
        "result": "taken" if last.is_taken else "refused",
        "changed": last.changed,
        "needs_restart": last.needs_restart,
        "problems": [{"path": path, "message": message} for path, message in last.problems],
    }
