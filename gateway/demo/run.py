"""Run the demo in a terminal until it is stopped."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.demo.lines import announcement
from gateway.demo.stack import demo

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORCE_AFTER_SECONDS = 3.0


async def run_demo(
    port: int, echo: Callable[[str], object], *, data: Path | None = None, origins: Sequence[str] = ()
) -> None:
    """Run the demo and print how to use it, until SIGINT, SIGTERM or cancellation.

    Raise `DemoError` if it cannot start.
    """
    with _SignalHandler() as signals:
        try:
            async with demo(port, data=data, origins=origins) as running:
                echo(announcement(running))
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not signals.received:
                raise
            signals.acknowledge()


class _SignalHandler:
    """Cancels the task on the first SIGINT or SIGTERM, so that the demo cleans up.

    Signals often arrive twice: timeout(1), npm and others forward what the terminal already sent to the process group.
    So further signals are ignored for a few seconds. After that, the next one kills the process.
    """

    def __init__(self) -> None:
        self.received = False
        self._task: asyncio.Task[object] | None = None
        self._handled: list[signal.Signals] = []
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "_SignalHandler":
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            try:
                loop.add_signal_handler(number, self._on_signal)
            except (NotImplementedError, ValueError, RuntimeError):
                # Windows, or not the main thread: the caller cancels the task instead.
                continue
            self._handled.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._remove_handlers()

    def _on_signal(self) -> None:
        if self.received:
            return
        self.received = True
        self._timer = asyncio.get_running_loop().call_later(_FORCE_AFTER_SECONDS, self._remove_handlers)
        assert self._task is not None
        self._task.cancel()

    def acknowledge(self) -> None:
        """Mark the cancellation as handled."""
        assert self._task is not None
        self._task.uncancel()

    def _remove_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._handled:
            loop.remove_signal_handler(number)
        self._handled.clear()
