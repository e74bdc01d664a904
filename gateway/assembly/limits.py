"""Builds what bounds callers: money, request rates, and the queue of creates over a rate."""

import msgspec

from gateway.assembly.base import Base, is_divided
from gateway.assembly.upstream import UpstreamParts
from gateway.domain import windows
from gateway.money.accounting import Accounting
from gateway.money.budget_alerts import Budgets
from gateway.money.ledger_audit import LedgerAuditor
from gateway.money.limit_queue import LimitQueue
from gateway.money.pricing import Pricing
from gateway.money.usage import UsageService
from gateway.runtime.loops import BackgroundLoop
from gateway.throttling.divided import DividedLimiter
from gateway.throttling.divided_hold_queue import DividedHoldQueue
from gateway.throttling.divided_request_rates import DividedRequestRates
from gateway.throttling.hold_queue import HoldQueue
from gateway.throttling.permit_desk import PermitDesk
from gateway.throttling.rules.request_rates import RequestRates
from gateway.throttling.share_exchange import ShareExchange


class MoneyParts(msgspec.Struct, frozen=True):
    """Prices, budgets and the ledger."""

    pricing: Pricing
    limit_queue: LimitQueue
    accounting: Accounting
    budgets: Budgets
    ledger_auditor: LedgerAuditor
    usage: UsageService


class RateParts(msgspec.Struct, frozen=True):
    """Request rates of callers."""

    rates: RequestRates
    hold_queue: HoldQueue


async def build_money(base: Base) -> MoneyParts:
    """Build prices, budgets and the ledger. Earlier costs, for estimates, are read from the ledger."""
    live, store, clock, metrics = base.live, base.store, base.clock, base.metrics
    pricing = Pricing(live.money, metrics)
    await pricing.load(store)
    budgets = Budgets(live.teams, live.money, store, clock, metrics)
    limit_queue = LimitQueue(store, clock, metrics)
    live.teams.subscribe(lambda _: limit_queue.retry())
    limit_queue.add_budget_exhausted_listener(budgets.on_budget_exhausted)
    metrics.read_on_scrape("waiters", lambda: {"limit": limit_queue.waiting})
    metrics.read_on_scrape(
        "budget_reset_timestamp_seconds", lambda: {each: windows.ends_at(each, clock.now()) for each in windows.Window}
    )
    return MoneyParts(
        pricing=pricing,
        limit_queue=limit_queue,
        accounting=Accounting(pricing, budgets, metrics),
        budgets=budgets,
        ledger_auditor=LedgerAuditor(store, store, pricing, budgets, clock, metrics, live.money),
        usage=UsageService(store, store, clock),
    )


async def build_rates(base: Base, upstream: UpstreamParts) -> RateParts:
    """Build request rates and the queue of creates over a rate. Where there can be several nodes, divide all rates."""
    metrics = base.metrics
    parts = await _divided(base, upstream) if is_divided(base) else _undivided(base)
    rates, hold_queue = parts.rates, parts.hold_queue
    metrics.read_on_scrape("waiters", lambda: {"rate": len(hold_queue)})
    metrics.read_on_scrape("rate_subjects_kept", lambda: rates.kept)
    metrics.read_on_scrape("rate_subjects_dropped", lambda: rates.dropped)
    return parts


def _undivided(base: Base) -> RateParts:
    rates = RequestRates()
    return RateParts(rates, HoldQueue(base.clock, base.metrics, rates))


async def _divided(base: Base, upstream: UpstreamParts) -> RateParts:
    metrics, clock = base.metrics, base.clock
    desk = PermitDesk(base.store, lambda: base.membership.number)
    base.stack.push_async_callback(desk.close)
    rates = DividedRequestRates(desk, upstream.share_lease, clock)
    limiters = [each for each in upstream.limiter.limiters if isinstance(each, DividedLimiter)]
    exchange = ShareExchange(base.store, base.membership, base.news, clock, upstream.share_lease, limiters, rates)
    # The first callers find shares.
    await exchange.divide()
    base.keep_running(exchange.run, BackgroundLoop.SHARES)
    metrics.read_on_scrape("account_share", lambda: {each.lane: each.share for each in limiters})
    metrics.read_on_scrape("rate_shares", lambda: exchange.shares)
    metrics.read_on_scrape("rate_permits", lambda: {"granted": desk.granted, "refused": desk.refused})
    return RateParts(rates, DividedHoldQueue(clock, metrics, rates))
