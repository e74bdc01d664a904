"""Runs the demo for a person, until they have had enough."""

import asyncio
import signal
from collections.abc import Callable

from gateway.demo.lines import announcement
from gateway.demo.stack import demo

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_SECONDS = 3.0


async def run_demo(port: int, echo: Callable[[str], object]) -> None:
    """Run the demo and say what there is to know of it, until SIGINT, SIGTERM or cancellation.

    Raise `DemoError` if it cannot start.
    """
    with _Stop() as stop:
        try:
            async with demo(port) as running:
                echo(announcement(running))
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not stop.asked:
                raise
            stop.answered()


class _Stop:
    """Turns the first signal into a cancellation, from the first moment on, so that nothing is left behind.

    Signals often come twice: timeout(1), npm and others pass on what the terminal has sent to everybody already. So
    more of them change nothing, until taking down has had its time; then the next one ends the process at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._task: asyncio.Task[object] | None = None
        self._held: list[signal.Signals] = []
        self._patience: asyncio.TimerHandle | None = None

    def __enter__(self) -> "_Stop":
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            try:
                loop.add_signal_handler(number, self._ask)
            except (NotImplementedError, ValueError, RuntimeError):
                # Windows, or not the main thread: whoever runs us cancels us.
                continue
            self._held.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._release()

    def _ask(self) -> None:
        if self.asked:
            return
        self.asked = True
        self._patience = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._release)
        assert self._task is not None
        self._task.cancel()

    def answered(self) -> None:
        """Say that the cancellation was ours and has been heard."""
        assert self._task is not None
        self._task.uncancel()

    def _release(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._held:
            loop.remove_signal_handler(number)
        self._held.clear()
