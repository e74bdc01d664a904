"""Builds what divides rates among the nodes, where several can serve from the store."""

from functools import partial

from gateway.assembly.base import Base
from gateway.runtime.clock import uptime
from gateway.runtime.loops import BackgroundLoop
from gateway.throttling.divided import DividedLimiter
from gateway.throttling.divided_hold_queue import DividedHoldQueue
from gateway.throttling.divided_request_rates import DividedRequestRates
from gateway.throttling.fair_limiter import FairLimiter
from gateway.throttling.hold_queue import HoldQueue
from gateway.throttling.permit_desk import PermitDesk
from gateway.throttling.rules.request_rates import RequestRates
from gateway.throttling.share_exchange import ShareExchange
from gateway.throttling.share_lease import ShareLease
from gateway.throttling.upstream_limiter import NewLimiter, UpstreamLimiter, asking


def is_divided(base: Base) -> bool:
    """Say whether rates are divided: whether other processes can serve from the store too."""
    return base.membership.number > 0


def new_limiter(base: Base) -> NewLimiter:
    """Return what makes the limiter of one of the account's rates."""
    if not is_divided(base):
        return FairLimiter
    lease = ShareLease(base.membership, uptime)
    return partial(DividedLimiter, lease=lease, asker=lambda: asking.get().name)


async def divide_rates(base: Base, limiter: UpstreamLimiter) -> tuple[RequestRates, HoldQueue]:
    """Divide the account's rates and the request rates. When it returns, this node has shares."""
    metrics, clock = base.metrics, base.clock
    limiters = [each for each in limiter.limiters if isinstance(each, DividedLimiter)]
    lease = limiters[0].lease
    desk = PermitDesk(base.store, lambda: base.membership.number)
    base.stack.push_async_callback(desk.close)
    rates = DividedRequestRates(desk, lease, clock)
    exchange = ShareExchange(base.store, base.membership, base.news, clock, lease, limiters, rates)
    await exchange.divide()
    base.keep_running(exchange.run, BackgroundLoop.SHARES)
    metrics.read_on_scrape("account_share", lambda: {each.lane: each.share for each in limiters})
    metrics.read_on_scrape("rate_shares", lambda: exchange.shares)
    metrics.read_on_scrape("rate_permits", lambda: {"granted": desk.granted, "refused": desk.refused})
    return rates, DividedHoldQueue(clock, metrics, rates)
