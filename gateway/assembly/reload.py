"""Reload the config. An invalid config changes nothing; a valid one is logged and applied in one step.

Files are read and checked in a thread. Then nothing is awaited until every part has its new values, so that no request
sees a mixture of old and new ones.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from gateway import logs
from gateway.assembly.config_recorder import ConfigRecorder
from gateway.config import Config, ConfigError, Problem
from gateway.config.changes import Change, diff, effective
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import OperationsObserver
from gateway.http.ops.config_state import Attempt, ConfigState
from gateway.runtime.loops import BackgroundLoop, run_while_open

logger = logging.getLogger(__name__)

_LEVELS = ("debug", "info", "warning", "error")


class Reloading:
    """Reloads the config on request. `config` is the one in effect; `state` is what `/admin/config` shows.

    `read` loads the config and raises `ConfigError`; it may block. `prepare` computes the new settings of every part
    and returns a function that applies all of them at once.
    """

    def __init__(
        self,
        config: Config,
        state: ConfigState,
        clock: Clock,
        observer: OperationsObserver,
        *,
        read: Callable[[], Config],
        prepare: Callable[[Config], Callable[[], None]],
        recorder: ConfigRecorder | None = None,
    ) -> None:
        self.config = config
        self._state = state
        self._clock = clock
        self._observer = observer
        self._read = read
        self._prepare = prepare
        self._recorder = recorder
        self._lock = asyncio.Lock()
        self._asked_elsewhere = asyncio.Event()
        self._reloaded: list[Callable[[], None]] = []

    def add_reloaded_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each reload that was asked for here and accepted."""
        self._reloaded.append(listener)

    def ask_if_changed(self) -> None:
        """Ask for a reload because another node has reloaded. A config that is the same is not mentioned."""
        self._asked_elsewhere.set()

    def listen(self, asked: asyncio.Event, stack: AsyncExitStack) -> None:
        """Reload each time `asked` is set or another node has reloaded, until the stack closes."""
        # Two loops, so that a request from here is not taken for one of another node that comes at the same time.
        for loop in (
            partial(self._on, asked, self._reload_and_tell),
            partial(self._on, self._asked_elsewhere, partial(self.reload, only_changes=True)),
        ):
            run_while_open(stack, loop, BackgroundLoop.RELOADS, self._clock, self._observer.loop_crashed)

    async def _reload_and_tell(self) -> None:
        if await self.reload():
            for listener in self._reloaded:
                listener()

    async def _on(self, asked: asyncio.Event, reload: Callable[[], Awaitable[object]]) -> None:
        """Reload each time `asked` is set, until cancelled. Requests during a reload cause one more reload."""
        while True:
            await asked.wait()
            asked.clear()
            try:
                await reload()
            except Exception:
                logger.exception("a reload crashed; restart to be sure which settings apply")

    async def reload(self, *, only_changes: bool = False) -> bool:
        """Read, check, apply and log. Return whether the config was accepted.

        With `only_changes`, a config without a change is neither applied nor mentioned.
        """
        async with self._lock:
            try:
                found = await asyncio.to_thread(self._read)
            except ConfigError as error:
                return self._refuse(error.problems)
            except Exception:
                logger.exception("reading the config crashed")
                return self._refuse([Problem("", "cannot be read: the log has the reason")])
            if only_changes and not diff(self.config, found):
                return True
            changes = diff(self.config, found)
            if not self._apply(found, changes):
                return False
            if self._recorder is not None:
                await self._recorder.loaded(found, changes)
            return True

    def _apply(self, found: Config, changes: Sequence[Change]) -> bool:
        for secret in found.secret_values():
            logs.register_secret(secret)
        merged, problems = effective(self.config, found)
        if problems:
            stays = ", ".join(change.path for change in changes if change.needs_restart)
            return self._refuse([_until_a_restart(problem, stays) for problem in problems])
        try:
            apply = self._prepare(merged)
        except Exception:
            logger.exception("the config could not be applied")
            return self._refuse([Problem("", "cannot be applied: the log has the reason")])
        before, self.config = self.config, merged
        apply()
        self._log_changes(changes, before.logs.level, merged.logs.level)
        self._state.loaded_at = now = self._clock.now()
        self._state.last = Attempt(
            at=now,
            is_taken=True,
            changed=tuple(change.path for change in changes if not change.needs_restart),
            needs_restart=tuple(change.path for change in changes if change.needs_restart),
        )
        self._observer.config_reloaded("taken", now)
        return True

    def _log_changes(self, changes: Sequence[Change], before: str, after: str) -> None:
        # Log the changes at the more verbose of the old and the new level.
        logs.set_level(min(before, after, key=_LEVELS.index))
        for change in changes:
            fields = {"path": change.path, "old": change.old, "new": change.new}
            if change.needs_restart:
                logger.warning("a change of the config needs a restart", extra=fields)
            else:
                logger.info("the config has changed", extra=fields)
        waiting = sum(change.needs_restart for change in changes)
        logger.info("config reloaded", extra={"changes": len(changes) - waiting, "need_restart": waiting})
        logs.set_level(after)

    def _refuse(self, problems: Sequence[Problem]) -> bool:
        for problem in problems:
            fields = {"path": problem.path or problem.place, "problem": problem.message}
            logger.error("the config is wrong", extra=fields | ({"place": problem.place} if problem.place else {}))
        logger.error("config not reloaded; nothing was changed", extra={"problems": len(problems)})
        now = self._clock.now()
        self._state.last = Attempt(
            at=now, is_taken=False, problems=tuple((each.path or each.place, each.message) for each in problems)
        )
        self._observer.config_reloaded("refused", now)
        return False


def _until_a_restart(problem: Problem, stays: str) -> Problem:
    return Problem(problem.path, f"{problem.message} (until a restart, these stay as they are: {stays})")
