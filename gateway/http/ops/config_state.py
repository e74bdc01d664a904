"""`GET /admin/config`: when the current config was loaded, and the result of the last reload."""

import msgspec
from aiohttp import web

from gateway.domain import times


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to reload the config."""

    at: float
    is_taken: bool
    problems: tuple[tuple[str, str], ...] = ()
    """Path and message of each problem, if the reload was refused."""
    changed: tuple[str, ...] = ()
    """Paths of the values that changed."""
    needs_restart: tuple[str, ...] = ()
    """Paths of the values that changed in the file and take effect only after a restart."""


class ConfigState(msgspec.Struct):
    """The state of the config, updated by each reload."""

    loaded_at: float
    last: Attempt | None = None


CONFIG_STATE = web.AppKey("config_state", ConfigState)


async def show_config(request: web.Request) -> web.Response:
    """Handle `GET /admin/config`. The response has paths only, because values may be confidential."""
    state = request.app[CONFIG_STATE]
    answer = {"loaded_at": times.render(state.loaded_at), "last_reload": _render(state.last)}
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def _render(last: Attempt | None) -> dict[str, object] | None:
    if last is None:
        return None
    return {
        "at": times.render(last.at),
        "result": "taken" if last.is_taken else "refused",
        "changed": last.changed,
        "needs_restart": last.needs_restart,
        "problems": [{"path": path, "message": message} for path, message in last.problems],
    }
