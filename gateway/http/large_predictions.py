"""Reads large predictions when there is room for them, and not before.

Any number of requests may ask for predictions of many MiB at once. The store says how large a prediction is and leaves
its document out (`PredictionView.left_out`). The document is read when its request has room in `ResponseMemory`.
"""

from aiohttp import web

from gateway.domain.records import PredictionView
from gateway.http.keys import PREDICTIONS
from gateway.http.response_body import patience_of
from gateway.http.response_memory import Room


async def take_room(
    request: web.Request, room: Room, found: list[PredictionView], *, is_create: bool = False
) -> PredictionView:
    """Wait until there is room for the only prediction of `found` and its response; return it with its document.

    It is taken out of `found`, so that nothing keeps its document while it waits. Raise `RateLimited` or `Overloaded`
    if there is no room in time, and `NotFound` if the prediction was deleted meanwhile.
    """
    view = found.pop()
    size = 2 * view.size
    has_room = room.take(size)
    if has_room and not view.left_out:
        return view
    view = view.without_document()
    if not has_room:
        await room.wait(size, patience_of(request), is_create=is_create)
    whole = await request.app[PREDICTIONS].whole(view)
    # It may have changed since its size was read.
    room.resize(2 * whole.size)
    return whole
