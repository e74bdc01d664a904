"""Which model a version belongs to."""

import asyncio

import pytest

from gateway.models.versions import VersionMap
from tests.support.clock import settle
from tests.support.fakes import AWAY, FakeStore, FakeUpstream, answer

VERSION = "b" * 64


@pytest.fixture
def versions(store: FakeStore, upstream: FakeUpstream) -> VersionMap:
    return VersionMap(store, upstream)


async def test_learned_version_survives_a_restart(versions, store, upstream):
    """Another process knows it too."""
    await versions.learn(VERSION, "acme/flux")
    assert await VersionMap(store, upstream).model_of(VERSION) == "acme/flux"


async def test_learned_version_is_written_once(versions, store):
    """A thousand responses of one version cost one write."""
    for _ in range(5):
        await versions.learn(VERSION, "acme/flux")
        assert await versions.model_of(VERSION) == "acme/flux"
    assert store.calls == ["learn_version"]


@pytest.mark.parametrize(
    ("version", "model"),
    [
        ("hidden", "a/b"), ("dp-" + "0" * 32, "a/b"), (None, "a/b"), (VERSION, None), (VERSION, ""),
        (VERSION, "noslash"), (VERSION, "a/b/c"), (VERSION, "a/*"),
    ],
)  # fmt: skip
async def test_invalid_version_or_model_is_not_learned(version, model, versions, store):
    """`hidden` is the version of every official model."""
    await versions.learn(version, model)
    assert store.calls == []


async def test_unknown_version_is_looked_up_until_found(versions, upstream, store):
    """The first model that has it is its model; the next time nothing is asked."""
    upstream.script = lambda call: answer(200 if "/b/" in call.path else 404)
    for _ in range(2):
        assert await versions.resolve(VERSION, ["x/a", "x/b", "x/c"]) == "x/b"
    assert len(upstream.calls) == 2
    assert store.versions == {VERSION: "x/b"}


async def test_version_found_nowhere_stays_unknown(versions, upstream):
    """It is looked up again the next time: it may have been pushed meanwhile."""
    upstream.script = lambda _: answer(404)
    assert await versions.resolve(VERSION, ["x/a"]) is None
    assert await versions.resolve(VERSION, ["x/a"]) is None
    assert len(upstream.calls) == 2
    assert await versions.resolve(VERSION, []) is None


async def test_lookup_of_a_long_list_is_limited(versions, upstream):
    """One create costs at most twenty lookups."""
    upstream.script = lambda _: answer(404)
    assert await versions.resolve(VERSION, [f"x/m{number}" for number in range(1000)]) is None
    assert len(upstream.calls) == 20


async def test_memory_is_limited(store, upstream):
    """What is forgotten here is known to the store."""
    versions = VersionMap(store, upstream, max_cached=2)
    ids = [f"{number:064x}" for number in range(10)]
    for version in ids:
        await versions.learn(version, "a/b")
    assert [await versions.model_of(version) for version in ids] == ["a/b"] * 10


async def test_failed_write_is_repeated(versions, store):
    """What could not be written is not believed written."""
    store.trouble = AWAY
    with pytest.raises(type(AWAY)):
        await versions.learn(VERSION, "a/b")
    store.trouble = None
    assert await versions.model_of(VERSION) is None
    await versions.learn(VERSION, "a/b")
    assert store.versions == {VERSION: "a/b"}


class SlowStore(FakeStore):
    """Writes a version when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def learn_version(self, version: str, model: str) -> None:
        await self.go.wait()
        await super().learn_version(version, model)


@pytest.fixture
def slow(upstream: FakeUpstream) -> tuple[SlowStore, VersionMap]:
    store = SlowStore()
    return store, VersionMap(store, upstream)


async def begin(versions: VersionMap, count: int) -> list[asyncio.Task[None]]:
    begun = [asyncio.create_task(versions.learn(VERSION, "a/b")) for _ in range(count)]
    await settle()
    return begun


async def test_everybody_who_teaches_a_version_waits_until_it_is_on_disk(slow):
    """What a run is shared by depends on it: its identity is not settled before a restart would find the version."""
    store, versions = slow
    begun = await begin(versions, 3)
    assert await versions.model_of(VERSION) == "a/b"
    assert not any(each.done() for each in begun)
    store.go.set()
    await asyncio.gather(*begun)
    assert store.versions == {VERSION: "a/b"}
    assert store.calls.count("learn_version") == 1


async def test_failed_write_fails_everybody_who_waits_for_it(slow):
    store, versions = slow
    begun = await begin(versions, 3)
    store.trouble = AWAY
    store.go.set()
    assert await asyncio.gather(*begun, return_exceptions=True) == [AWAY] * 3
    assert store.calls.count("learn_version") == 1


async def test_write_whose_caller_is_cancelled_is_done_by_another(slow):
    store, versions = slow
    begun = await begin(versions, 3)
    begun[0].cancel()
    await settle()
    store.go.set()
    await asyncio.gather(*begun[1:])
    assert store.versions == {VERSION: "a/b"}
    assert begun[0].cancelled()
