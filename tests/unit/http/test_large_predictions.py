"""Large predictions are read when there is room for them: however many requests ask, few documents are in memory."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from gateway.domain.records import PredictionView
from gateway.errors import Overloaded
from gateway.http import keys
from gateway.http.large_predictions import take_room
from gateway.http.response_memory import ResponseMemory
from tests.support.clock import settle
from tests.support.records import live, prediction

SIZE = 1000
MOST = 10 * SIZE


class Service:
    """Counts the documents that it has given out."""

    def __init__(self) -> None:
        self.reads = 0
        self.document = b"x" * SIZE

    async def whole(self, view: PredictionView) -> PredictionView:
        assert not view.run.document
        self.reads += 1
        return PredictionView(view.prediction, live(document=self.document, request=b""))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def memory() -> ResponseMemory:
    return ResponseMemory(lambda: MOST)


@pytest.fixture
def request_(service: Service) -> web.Request:
    app: Any = web.Application()
    app[keys.PREDICTIONS] = service
    return make_mocked_request("GET", "/", app=app)


def left_out() -> list[PredictionView]:
    return [PredictionView(prediction(), live(document=b"", request=b""), left_out=SIZE)]


async def test_documents_in_memory_are_bounded_whatever_clients_do(request_, service, memory, monkeypatch):
    """A hundred clients of ten teams ask and take nothing: each has twice its document counted, before it is read."""
    monkeypatch.setattr("gateway.http.large_predictions.patience_of", lambda _: 60.0)
    gone = asyncio.Event()

    async def ask(team: str) -> None:
        with memory.room(team) as room:
            assert len((await take_room(request_, room, left_out())).run.document) == SIZE
            await gone.wait()

    tasks = [asyncio.create_task(ask(f"team{number % 10}")) for number in range(100)]
    await settle()
    assert (service.reads, memory.used, memory.waiting) == (5, MOST, 95)
    gone.set()
    await asyncio.gather(*tasks)
    assert (service.reads, memory.used) == (100, 0)


async def test_document_in_memory_is_not_read_again(request_, service, memory):
    """It is there already, and counted from now on."""
    view = PredictionView(prediction(), live(document=b"x" * SIZE, request=b""))
    with memory.room("red") as room:
        assert await take_room(request_, room, [view]) is view
        assert (service.reads, memory.used) == (0, 2 * SIZE)


async def test_nothing_is_read_without_room(request_, service, memory):
    """A caller without a team has no patience."""
    with memory.room("red") as red, memory.room("blue") as blue, memory.room("") as room:
        red.need(5 * SIZE)
        blue.need(5 * SIZE)
        found = left_out()
        with pytest.raises(Overloaded):
            await take_room(request_, room, found)
    assert (service.reads, found, memory.used) == (0, [], 0)


async def test_document_that_has_grown_is_counted_with_its_new_size(request_, service, memory):
    service.document = b"x" * 2 * SIZE
    with memory.room("red") as room:
        await take_room(request_, room, left_out())
        assert memory.used == 4 * SIZE
