"""Whether the gateway can do its work."""

import asyncio

import pytest

from gateway.errors import StoreTaken, UpstreamTimeout, UpstreamTokenRefused
from gateway.operations.health import Health
from tests.support.clock import ManualClock
from tests.support.fakes import AWAY, FakeStore, FakeUpstream, answer


class Token:
    """Whether upstream has refused it lately."""

    refused = False


@pytest.fixture
def token() -> Token:
    return Token()


@pytest.fixture
def health(store: FakeStore, upstream: FakeUpstream, clock: ManualClock, token: Token) -> Health:
    return Health(store, upstream, clock, lambda: token.refused)


async def test_healthy_gateway_is_ready(health):
    """The load balancer sends callers here."""
    report = await health.report()
    assert (report.ready, report.checks) == (True, {"store": "ok", "upstream": "ok"})
    assert report.status == "ready"
    assert health.degraded() == {"upstream": 0, "store": 0, "database": 0, "connections": 0}


async def test_upstream_is_checked_once_a_minute(health, upstream, clock):
    """A probe every second costs upstream one request a minute, and many probes no more."""
    await asyncio.gather(*(health.report() for _ in range(50)))
    assert len(upstream.calls) == 1
    for _ in range(59):
        await clock.advance(1)
        await health.report()
    assert len(upstream.calls) == 1
    await clock.advance(1)
    await health.report()
    assert len(upstream.calls) == 2


async def test_unavailable_store_is_not_ready(health, store):
    """And ready again at once."""
    store.trouble = AWAY
    report = await health.report()
    assert (report.ready, report.checks["store"]) == (False, AWAY.detail)
    assert (report.status, health.is_ready) == ("not ready", False)
    store.trouble = None
    assert (await health.report()).ready
    assert health.is_ready


async def test_store_that_others_share_degrades_readiness(health, store):
    """To take every process out of the load balancer would help nobody; what is in memory is still served."""
    store.is_shared, store.trouble = True, AWAY
    report = await health.report()
    assert (report.ready, report.status, report.checks["store"]) == (True, "degraded", AWAY.detail)
    assert (health.is_ready, health.degraded()["database"]) == (True, 1)
    store.trouble = None
    assert (await health.report()).status == "ready"
    assert health.degraded()["database"] == 0


async def test_shared_store_that_another_process_has_taken_is_not_ready(health, store):
    """The other process serves; this one may not."""
    store.is_shared, store.trouble = True, StoreTaken("Another process already serves.")
    report = await health.report()
    assert (report.ready, health.is_ready) == (False, False)
    store.trouble = AWAY
    assert (await health.report()).ready


async def test_a_failing_store_is_seen_and_logged_without_a_prober(health, store, clock, caplog):
    """Metrics and log tell of it, once each way."""
    watching = asyncio.ensure_future(health.watch())
    store.trouble = AWAY
    for _ in range(3):
        await clock.advance(10)
    assert not health.is_ready
    store.trouble = None
    await clock.advance(10)
    assert health.is_ready
    watching.cancel()
    assert [record.message for record in caplog.records] == ["the store cannot be used", "the store works again"]


async def test_a_failure_of_some_operations_degrades_and_does_not_fail_readiness(health, store):
    """One sector that cannot be read must not take the whole service away from its callers."""
    store.recent_failure = "The store's disk cannot be read or written."
    report = await health.report()
    assert (report.ready, report.status) == (True, "degraded")
    assert report.checks["store"] == "The store's disk cannot be read or written. Other operations succeed."
    assert health.degraded() == {"upstream": 0, "store": 1, "database": 0, "connections": 0}


@pytest.mark.parametrize("trouble", [UpstreamTimeout("Slow."), UpstreamTokenRefused("Refused.")])
async def test_failing_upstream_is_not_ready_and_soon_checked_again(trouble, health, upstream, clock):
    """Its recovery is seen within seconds, not a minute."""

    def away(_):
        raise trouble

    upstream.script = away
    for _ in range(3):
        report = await health.report()
        assert (report.status, report.checks["upstream"]) == ("degraded", trouble.detail)
        assert (report.ready, report.degraded) == (True, True), "all processes share this cause"
        assert health.degraded() == {"upstream": 1, "store": 0, "database": 0, "connections": 0}
    assert len(upstream.calls) == 1
    upstream.script = lambda _: answer()
    await clock.advance(5)
    assert (await health.report()).status == "ready"


async def test_exhausted_connections_degrade_readiness(store, upstream, clock):
    """An operator sees why calls wait, although Replicate answers."""
    in_use = True
    health = Health(store, upstream, clock, lambda: False, lambda: in_use)
    report = await health.report()
    assert (report.status, report.checks["connections"]) == ("degraded", "All connections to Replicate are in use.")
    assert health.degraded()["connections"] == 1
    in_use = False
    assert (await health.report()).status == "ready"


async def test_unsuccessful_response_is_reported(health, upstream):
    """The operator learns which."""
    upstream.script = lambda _: answer(403)
    assert (await health.report()).checks["upstream"] == "GET /account answered 403"


async def test_rejected_token_is_checked_at_once(health, upstream, token):
    """Readiness does not wait for the minute to be over."""
    assert (await health.report()).status == "ready"
    token.refused = True

    def refuse(_):
        raise UpstreamTokenRefused("Refused.")

    upstream.script = refuse
    assert (await health.report()).status == "degraded"
    assert len(upstream.calls) == 2


async def test_gateway_in_shutdown_is_not_ready(health):
    """The load balancer removes it while open requests end."""
    health.draining = True
    report = await health.report()
    assert (report.ready, report.checks["gateway"]) == (False, "shutting down")


async def test_node_without_a_lease_is_not_ready(store, upstream, clock):
    """Others have taken over its runs, and callers should go there."""
    is_shut_out = [False]
    health = Health(store, upstream, clock, lambda: False, is_shut_out=lambda: is_shut_out[0])
    assert (await health.report()).ready
    is_shut_out[0] = True
    report = await health.report()
    assert (report.ready, health.is_ready) == (False, False)
    assert "lease" in report.checks["node"]
