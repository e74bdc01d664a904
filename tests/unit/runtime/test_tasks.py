"""Background tasks: they survive their waiters, run once per key, end in time, and lose no exception."""

import asyncio
import logging

import pytest

from gateway.errors import StoreUnavailable
from gateway.runtime.tasks import Tasks, run_until_first
from tests.support.clock import settle


class Work:
    """Work that ends when the test says so."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.began = self.ended = self.cancelled = 0

    async def run(self, error: Exception | None = None) -> int:
        self.began += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        if error is not None:
            raise error
        return self.ended


@pytest.fixture
async def work() -> Work:
    return Work()


async def cancelled(waiter: "asyncio.Task[int]") -> None:
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter


class TestRunToCompletion:
    async def test_the_waiter_gets_the_result(self, work: Work) -> None:
        work.may_end.set()
        assert await Tasks().run_to_completion(work.run(), "work") == 1

    async def test_the_waiter_gets_the_exception_and_nothing_is_logged(
        self, work: Work, caplog: pytest.LogCaptureFixture
    ) -> None:
        work.may_end.set()
        with pytest.raises(ValueError, match="no"):
            await Tasks().run_to_completion(work.run(ValueError("no")), "work")
        assert not caplog.records

    async def test_task_continues_when_its_waiter_is_cancelled(self, work: Work) -> None:
        """A caller who disconnects does not interrupt the work."""
        tasks = Tasks()
        waiter = asyncio.create_task(tasks.run_to_completion(work.run(), "work"))
        await settle()
        await cancelled(waiter)
        work.may_end.set()
        await tasks.close()
        assert (work.ended, work.cancelled) == (1, 0)

    @pytest.mark.parametrize(
        ("error", "level", "words"),
        [(ValueError("no"), logging.ERROR, "crashed"), (StoreUnavailable("away"), logging.WARNING, "failed")],
    )
    async def test_an_exception_after_the_waiter_left_is_logged(
        self, work: Work, caplog: pytest.LogCaptureFixture, error: Exception, level: int, words: str
    ) -> None:
        """Nothing else would report it."""
        tasks = Tasks()
        waiter = asyncio.create_task(tasks.run_to_completion(work.run(error), "work"))
        await settle()
        await cancelled(waiter)
        work.may_end.set()
        await tasks.close()
        (record,) = caplog.records
        assert record.levelno == level
        assert words in record.message
        assert record.__dict__["task"] == "work"

    async def test_an_exception_in_the_turn_in_which_the_waiter_leaves_is_logged(
        self, work: Work, caplog: pytest.LogCaptureFixture
    ) -> None:
        tasks = Tasks()
        waiter = asyncio.create_task(tasks.run_to_completion(work.run(ValueError("no")), "work"))
        await settle()
        work.may_end.set()
        while not work.ended:
            await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        await tasks.close()
        assert waiter.cancelled()
        assert [record.levelno for record in caplog.records] == [logging.ERROR]


class TestSpawn:
    async def test_an_exception_is_logged_with_its_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        tasks = Tasks()

        async def crash() -> None:
            raise ValueError("no")

        tasks.spawn(crash(), "crash")
        await tasks.close()
        (record,) = caplog.records
        assert record.__dict__["task"] == "crash"
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)


class TestSingleFlight:
    async def test_calls_of_one_key_share_one_run(self, work: Work) -> None:
        tasks = Tasks()
        waiters = [asyncio.create_task(tasks.single_flight("key", work.run, "work")) for _ in range(10)]
        await settle()
        assert work.began == 1
        work.may_end.set()
        assert await asyncio.gather(*waiters) == [1] * 10

    async def test_other_keys_run_on_their_own(self, work: Work) -> None:
        tasks = Tasks()
        work.may_end.set()
        await asyncio.gather(*(tasks.single_flight(key, work.run, "work") for key in range(3)))
        assert work.began == 3

    async def test_one_waiter_that_leaves_does_not_stop_the_others(self, work: Work) -> None:
        tasks = Tasks()
        first, second = (asyncio.create_task(tasks.single_flight("key", work.run, "work")) for _ in range(2))
        await settle()
        await cancelled(first)
        work.may_end.set()
        assert await second == 1

    async def test_every_waiter_gets_the_exception_and_the_next_call_starts_again(
        self, work: Work, caplog: pytest.LogCaptureFixture
    ) -> None:
        tasks = Tasks()
        work.may_end.set()
        waiters = [tasks.single_flight("key", lambda: work.run(ValueError("no")), "work") for _ in range(3)]
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError] * 3
        assert not caplog.records
        assert await tasks.single_flight("key", work.run, "work") == 2

    async def test_forgotten_call_is_not_joined_and_keeps_newer_ones(self, work: Work) -> None:
        """A read from before a change is not returned to callers who ask after it."""
        tasks, newer = Tasks(), Work()
        first = asyncio.create_task(tasks.single_flight("key", work.run, "work"))
        await settle()
        tasks.forget_flights()
        second = asyncio.create_task(tasks.single_flight("key", newer.run, "work"))
        await settle()
        work.may_end.set()
        assert await first == 1
        third = asyncio.create_task(tasks.single_flight("key", newer.run, "work"))
        await settle()
        newer.may_end.set()
        assert await asyncio.gather(second, third) == [1, 1]
        assert newer.began == 1


class TestClose:
    async def test_without_a_grace_all_work_ends(self, work: Work) -> None:
        tasks = Tasks()
        tasks.spawn(work.run(), "work")
        closing = asyncio.create_task(tasks.close())
        await settle()
        assert not closing.done()
        work.may_end.set()
        await closing
        assert work.ended == 1

    async def test_after_the_grace_work_is_cancelled(self, work: Work) -> None:
        tasks = Tasks()
        tasks.spawn(work.run(), "work")
        await settle()
        await tasks.close(0.0)
        assert (work.ended, work.cancelled) == (0, 1)

    async def test_tasks_started_by_other_tasks_are_waited_for(self, work: Work) -> None:
        tasks = Tasks()

        async def starts_more() -> None:
            tasks.spawn(work.run(), "more")

        tasks.spawn(starts_more(), "first")
        work.may_end.set()
        await tasks.close()
        assert work.ended == 1


async def test_the_first_that_ends_cancels_the_others() -> None:
    first, second = Work(), Work()
    first.may_end.set()
    await run_until_first(first.run(), second.run())
    assert (first.ended, second.cancelled) == (1, 1)


async def test_the_exception_of_the_first_that_ends_is_raised() -> None:
    first, second = Work(), Work()
    first.may_end.set()
    with pytest.raises(ValueError, match="no"):
        await run_until_first(first.run(ValueError("no")), second.run())
    assert second.cancelled == 1


async def test_cancelling_the_waiter_cancels_all() -> None:
    first, second = Work(), Work()

    async def wait() -> int:
        await run_until_first(first.run(), second.run())
        return 0

    waiter = asyncio.create_task(wait())
    await settle()
    await cancelled(waiter)
    assert (first.cancelled, second.cancelled) == (1, 1)
