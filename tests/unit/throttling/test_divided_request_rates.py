"""Request rates on one of several nodes, when a subject is dropped from memory while a request of it is held."""

from gateway.domain.limits import Allowance, Limits
from gateway.domain.rates import Rate
from gateway.domain.teams import Caller, Team
from gateway.throttling.divided_request_rates import DividedRequestRates
from gateway.throttling.permit_desk import PermitDesk
from gateway.throttling.share_exchange import ShareExchange
from gateway.throttling.share_lease import ShareLease
from tests.support.clock import ManualClock
from tests.support.divided_rates import MemoryNews, MemoryRates, TestMembership

PER_MINUTE = 60
TEAM = Team(name="red", scopes=frozenset(), allowance=Allowance(per_user=Limits(requests_per_minute=PER_MINUTE)))
CALLER = Caller(team=TEAM, key_id="key", scopes=frozenset(), models=())


async def test_dropped_subject_gets_no_second_share(clock: ManualClock):
    """A create of it was held meanwhile, and goes on with the bucket that it began with."""
    store, membership = MemoryRates(clock), TestMembership(1)
    store.renew(1)
    lease = ShareLease(membership, clock.monotonic)
    rates = DividedRequestRates(PermitDesk(store, lambda: 1), lease, clock, max_kept=1)
    exchange = ShareExchange(store, membership, MemoryNews([]), clock, lease, (), rates)
    await exchange.divide()
    held = rates.buckets(CALLER, "user")
    rates.buckets(CALLER, "another user")
    later = rates.buckets(CALLER, "user")
    assert held != later

    granted = 0
    for step in range(60):
        # The held one is tried for the first time when the other one has a share.
        for buckets in (later, held) if step > 4 else (later,):
            granted += rates.admit(buckets, clock.monotonic()) is None or await rates.take(buckets) is None
        await clock.advance(0.5)
        store.renew(1)
        await exchange.divide()
    whole = Rate.of(PER_MINUTE)
    assert granted <= whole.burst + 30 / whole.interval + 1
