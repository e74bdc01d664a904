"""`gateway serve` that is killed with SIGKILL at a chosen passage of a chosen step of a create's way.

python -m tests.support.crash_child CONFIG [WHEN STEP PASSAGE]

WHEN is `before`, `amid` or `after` the step: in the middle of it a thread kills, some moments after it began, wherever
the writing thread, the network and the event loop are then. No code of the gateway knows of this: methods of the store
and of the client are wrapped from outside. Searches for orphans are short, and `Cancel-After` may be.
"""

import asyncio
import functools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway import app, cli
from gateway.http import prefer
from gateway.predictions import adoption
from gateway.predictions.ports.sharing import Hit, Joined
from gateway.store.objects.folder import FolderStore
from gateway.store.sql.steps import Steps
from gateway.upstream.replicate import ReplicateClient
from tests.support.node_child import times_of

SEARCH_SECONDS = 0.8
LEASE_SECONDS = 2.0
_LONGEST_AMID = {"create": 0.08, "ask-cancel": 0.01}
_LONGEST = 0.004


class Step(NamedTuple):
    """A method, those of its calls that are meant, and those of its results."""

    owner: type
    method: str
    asked: Callable[..., bool] = lambda *_, **__: True
    given: Callable[[Any], bool] = lambda _: True


def _sent(ending: str) -> Callable[..., bool]:
    return lambda operation, *_, **__: operation.endswith(ending)


STEPS = {
    "share": Step(Steps, "share"),
    "start": Step(Steps, "start"),
    "join": Step(Steps, "share", given=lambda outcome: isinstance(outcome, Joined)),
    "keyed-hit": Step(Steps, "share", given=lambda outcome: isinstance(outcome, Hit)),
    "hit": Step(Steps, "record_hits", given=any),
    "create": Step(ReplicateClient, "send", _sent("predictions.create")),
    "record": Step(Steps, "record_created"),
    "learn": Step(Steps, "learn_version"),
    "settle": Step(Steps, "settle_identity"),
    "detach": Step(Steps, "detach"),
    "discard": Step(Steps, "discard_intent"),
    "uncertain": Step(Steps, "mark_uncertain"),
    "look": Step(ReplicateClient, "read", _sent("predictions.list")),
    "advance": Step(Steps, "advance", lambda *_, status, **__: not status.is_terminal),
    "end": Step(Steps, "advance", lambda *_, status, **__: status.is_terminal),
    "cancel": Step(Steps, "cancel", lambda *_, by_deadline=False, **__: not by_deadline),
    "expire": Step(Steps, "cancel", lambda *_, by_deadline=False, **__: by_deadline),
    "ask-cancel": Step(ReplicateClient, "send", _sent(".cancel")),
    "claim": Step(Steps, "claim_object"),
    "put": Step(FolderStore, "put"),
    "keep": Step(Steps, "keep_copies"),
}


def die() -> None:
    """End as if the power of the process had been cut."""
    os.write(1, b"killed\n")
    os.kill(os.getpid(), signal.SIGKILL)


def die_soon(longest: float) -> None:
    """End within moments, at no particular place."""

    def wait() -> None:
        time.sleep(random.random() * longest)
        die()

    threading.Thread(target=wait, daemon=True).start()


def arrange(when: str, name: str, passage: int) -> None:
    """Let the n-th passage of a step be the last thing that this process does."""
    step = STEPS[name]
    original = getattr(step.owner, step.method)
    left = passage

    def passes() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    @functools.wraps(original)
    async def wrapped(self: Any, *args: Any, **more: Any) -> Any:
        is_meant = step.asked(*args, **more)
        if is_meant and when == "before" and passes():
            die()
        if is_meant and when == "amid" and passes():
            die_soon(_LONGEST_AMID.get(name, _LONGEST))
        result = await original(self, *args, **more)
        if is_meant and when == "after" and step.given(result) and passes():
            die()
        return result

    @functools.wraps(original)
    def as_future(self: Any, *args: Any, **more: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(wrapped(self, *args, **more))

    setattr(step.owner, step.method, wrapped if asyncio.iscoroutinefunction(original) else as_future)


def main(config: str, *point: str) -> None:
    """Serve, until the point is reached if one is given."""
    adoption._SEARCH_SECONDS = SEARCH_SECONDS
    # With PostgreSQL, the runs of the killed process are taken over when its lease has expired.
    vars(app)["running"] = functools.partial(app.running, lease_times=times_of(LEASE_SECONDS))
    prefer.CANCEL_AFTER_SECONDS = (1, prefer.CANCEL_AFTER_SECONDS[1])
    if point:
        when, name, passage = point
        arrange(when, name, int(passage))
    cli.main(["serve", "--config", config])


if __name__ == "__main__":
    main(*sys.argv[1:])
