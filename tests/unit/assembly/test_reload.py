"""Reloads over nodes: one that is asked of a node is told to the others, which mention a change only."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.assembly.reload import Reloading
from gateway.config import Config, from_mapping
from gateway.http.ops.config_state import ConfigState
from tests.support.clock import START, ManualClock, settle
from tests.support.observer import RecordingObserver
from tests.support.polling import until


def config_of(retain_days: int = 30) -> Config:
    data = {
        "upstream": {"base_url": "https://upstream.example/v1"},
        "store": {"retain_days": retain_days},
        "teams": [{"name": "red", "keys": [{"name": "default", "key_env": "KEY"}]}],
    }
    return from_mapping(data, {"REPLICATE_API_TOKEN": "r8_" + "a" * 37, "KEY": "rgw_benchbenchbe_" + "b" * 32})


class Reloads:
    """A config that is reloaded, and how often each thing has happened."""

    def __init__(self, clock: ManualClock) -> None:
        self.found = config_of()
        self.observer = RecordingObserver()
        self.applied: list[Config] = []
        self.told = 0
        self.reads = 0
        self.asked = asyncio.Event()
        self.reloading = Reloading(
            self.found, ConfigState(START), clock, self.observer, read=self._read, prepare=self._prepare
        )
        self.reloading.add_reloaded_listener(self._tell)

    def _read(self) -> Config:
        self.reads += 1
        return self.found

    def _prepare(self, config: Config):
        return lambda: self.applied.append(config)

    def _tell(self) -> None:
        self.told += 1


@pytest.fixture
async def reloads(clock: ManualClock):
    made = Reloads(clock)
    async with AsyncExitStack() as stack:
        made.reloading.listen(made.asked, stack)
        await settle()
        yield made


async def test_reload_that_is_asked_for_here_is_told(reloads: Reloads):
    reloads.asked.set()
    await until(lambda: reloads.told == 1)
    assert len(reloads.applied) == 1


async def test_reload_of_another_node_is_followed_and_not_told_again(reloads: Reloads):
    reloads.found = config_of(retain_days=60)
    reloads.reloading.ask_if_changed()
    await until(lambda: reloads.applied)
    await settle()
    assert (reloads.told, reloads.observer.count("config_reloaded")) == (0, 1)


async def test_reload_that_is_asked_for_here_and_elsewhere_at_once_is_told(reloads: Reloads):
    """The signal comes when the news of the other node have just arrived."""
    reloads.reloading.ask_if_changed()
    reloads.asked.set()
    await until(lambda: reloads.told == 1)
    await until(lambda: reloads.reads == 2)
    assert len(reloads.applied) == 1


async def test_config_that_is_the_same_is_not_mentioned(reloads: Reloads):
    reloads.reloading.ask_if_changed()
    await until(lambda: reloads.reads == 1)
    reloads.asked.set()
    await until(lambda: reloads.told == 1)
    assert len(reloads.applied) == 1
    assert reloads.observer.count("config_reloaded") == 1
