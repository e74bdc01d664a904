"""Metadata, read through and kept for a while."""

import asyncio
import json

import pytest

from gateway.errors import UpstreamTimeout
from gateway.models.metadata import MetadataService, MetadataSettings, Question
from gateway.runtime.live import LiveSettings
from tests.support.clock import ManualClock, settle
from tests.support.fakes import FakeUpstream, answer

MODELS = Question("models.list", "GET", "/models")
PAGE = b'{"next":"https://api.replicate.com/v1/models?cursor=c","previous":null,"results":[1]}'


@pytest.fixture
def lookups() -> list[bool]:
    return []


def service(upstream: FakeUpstream, clock: ManualClock, lookups: list[bool], ttl: float = 60, size: int = 100_000):
    settings = LiveSettings(MetadataSettings(ttl_seconds=ttl, max_bytes=size))
    return MetadataService(upstream, clock, settings, on_lookup=lookups.append)


async def test_hundred_concurrent_reads_are_one(upstream, clock, lookups):
    """A page that everyone opens at once is read once."""
    gate = asyncio.Event()

    async def slow(_):
        await gate.wait()
        return answer(200, PAGE)

    upstream.script = slow
    metadata = service(upstream, clock, lookups)
    asking = [asyncio.create_task(metadata.ask(MODELS)) for _ in range(100)]
    await settle()
    asking[0].cancel()
    await settle()
    gate.set()
    found = await asyncio.gather(*asking[1:])
    assert len(upstream.calls) == 1
    assert {each.entry.answer.body for each in found} == {PAGE}
    assert not any(each.is_hit for each in found)
    assert (await metadata.ask(MODELS)).is_hit
    assert lookups == [False] * 100 + [True]


async def test_fresh_entry_is_served_from_memory_with_its_age(upstream, clock, lookups):
    """After the TTL upstream is asked again."""
    upstream.script = lambda _: answer(200, PAGE)
    metadata = service(upstream, clock, lookups)
    assert (await metadata.ask(MODELS)).age == 0
    await clock.advance(59)
    found = await metadata.ask(MODELS)
    assert (found.is_hit, found.age, found.ttl) == (True, 59, 1)
    await clock.advance(1)
    assert not (await metadata.ask(MODELS)).is_hit
    assert len(upstream.calls) == 2


async def test_zero_ttl_keeps_nothing(upstream, clock, lookups):
    """0 turns it off."""
    metadata = service(upstream, clock, lookups, ttl=0)
    for _ in range(3):
        found = await metadata.ask(MODELS)
        assert (found.is_hit, found.ttl) == (False, 0)
    assert (len(upstream.calls), metadata.size, lookups) == (3, 0, [])


async def test_uncacheable_route_is_always_read(upstream, clock, lookups):
    """A list of deployments is never old, and is not served for other requests."""
    metadata = service(upstream, clock, lookups)
    await metadata.ask(MODELS)
    assert not (await metadata.ask(MODELS, fresh=True)).is_hit
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("status", [404, 429, 500, 202])
async def test_only_successes_are_cached(status, upstream, clock, lookups):
    """A model that is pushed a moment later is found."""
    upstream.script = lambda _: answer(status)
    metadata = service(upstream, clock, lookups)
    await metadata.ask(MODELS)
    await metadata.ask(MODELS)
    assert (len(upstream.calls), metadata.size) == (2, 0)


async def test_failure_is_shared_and_not_cached(upstream, clock, lookups):
    """Callers who share the read share its error; the next one asks again."""

    def away(_):
        raise UpstreamTimeout("slow")

    upstream.script = away
    metadata = service(upstream, clock, lookups)
    outcomes = await asyncio.gather(*(metadata.ask(MODELS) for _ in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UpstreamTimeout] * 5
    assert len(upstream.calls) == 1
    upstream.script = lambda _: answer(200, PAGE)
    assert (await metadata.ask(MODELS)).entry.answer.body == PAGE


@pytest.mark.parametrize(
    "other",
    [
        Question("models.list", "GET", "/models", "cursor=x"),
        Question("models.get", "GET", "/models/a/b"),
        Question("models.search", "QUERY", "/models", "", b"llama", "text/plain"),
        Question("models.search", "QUERY", "/models", "", b"other", "text/plain"),
    ],
)
async def test_different_requests_have_different_entries(other, upstream, clock, lookups):
    """A search is sent on with its words and their type."""
    upstream.script = lambda call: answer(
        200, json.dumps([call.path, call.query, (call.body or b"").decode()]).encode()
    )
    metadata = service(upstream, clock, lookups)
    first = (await metadata.ask(MODELS)).entry
    second = (await metadata.ask(other)).entry
    assert (first.answer.body, first.etag) != (second.answer.body, second.etag)
    call = upstream.calls[-1]
    assert (call.method, call.body) == (other.method, other.body or None)
    assert (call.headers or {}).get("Content-Type", "") == other.content_type


async def test_what_is_shown_is_made_once_for_callers_with_one_base(upstream, clock, lookups):
    """The next caller gets the same bytes. A compressed body is kept if that is worth its memory."""
    upstream.script = lambda _: answer(200, PAGE)
    entry = (await service(upstream, clock, lookups).ask(MODELS)).entry
    shown = await entry.shown("https://a/v1")
    assert await entry.shown("https://a/v1") is shown
    shown.note_gzipped(b"x" * (len(shown.body) // 2 + 1))
    assert shown.gzipped is None
    shown.note_gzipped(b"x" * (len(shown.body) // 2))
    assert shown.gzipped is not None
    assert (await entry.shown("https://b/v1")).gzipped is None


async def test_entry_is_shown_under_every_base(upstream, clock, lookups):
    """One copy serves callers who reach the gateway in different ways."""
    upstream.script = lambda _: answer(200, PAGE)
    entry = (await service(upstream, clock, lookups).ask(MODELS)).entry
    for base in ("https://a/v1", "http://b/v1"):
        assert json.loads((await entry.shown(base)).body)["next"] == f"{base}/models?cursor=c"


async def test_memory_is_limited_in_bytes(upstream, clock, lookups):
    """Old entries make room; one that is larger than the limit is not kept."""
    upstream.script = lambda call: answer(200, b"x" * int(call.query))
    metadata = service(upstream, clock, lookups, size=20_000)
    for number in range(50):
        await metadata.ask(Question("m", "GET", f"/{number}", "3000"))
        assert metadata.size <= 20_000
    await metadata.ask(Question("m", "GET", "/big", "30000"))
    assert metadata.size > 0
    assert (await metadata.ask(Question("m", "GET", "/49", "3000"))).is_hit


async def test_long_requests_count_towards_the_limit(upstream, clock, lookups):
    """A search for ten megabytes of words does not fill the memory unseen."""
    metadata = service(upstream, clock, lookups, size=100_000)
    for number in range(10):
        await metadata.ask(Question("models.search", "QUERY", "/models", "", b"%d" % number * 50_000, "text/plain"))
    kept = sum(len(question.body) for question in metadata._entries)
    assert kept <= 100_000


async def test_change_invalidates_entries(upstream, clock, lookups):
    """A caller who changes a deployment reads it as changed."""
    metadata = service(upstream, clock, lookups)
    await metadata.ask(MODELS)
    metadata.forget()
    assert metadata.size == 0
    assert not (await metadata.ask(MODELS)).is_hit


async def test_read_begun_before_a_change_is_not_cached(upstream, clock, lookups):
    """What upstream said before the change is not shown for a minute afterwards."""
    gate = asyncio.Event()

    async def old(_):
        await gate.wait()
        return answer(200, b'"old"')

    upstream.script = old
    metadata = service(upstream, clock, lookups)
    asking = asyncio.create_task(metadata.ask(MODELS))
    await settle()
    metadata.forget()
    gate.set()
    await asking
    upstream.script = lambda _: answer(200, b'"new"')
    assert (await metadata.ask(MODELS)).entry.answer.body == b'"new"'


async def test_closing_abandons_reads_in_progress(upstream, clock, lookups):
    """A shutdown does not wait for upstream."""

    async def never(_):
        await asyncio.Event().wait()

    upstream.script = never
    metadata = service(upstream, clock, lookups)
    asking = asyncio.create_task(metadata.ask(MODELS))
    await settle()
    await metadata.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
