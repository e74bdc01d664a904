"""Builds what bounds callers: money, request rates, and the queue of creates over a rate."""

import msgspec

from gateway.assembly.base import Base
from gateway.assembly.shares import divide_rates, is_divided
from gateway.assembly.upstream import UpstreamParts
from gateway.domain import windows
from gateway.money.accounting import Accounting
from gateway.money.budget_alerts import Budgets
from gateway.money.ledger_audit import LedgerAuditor
from gateway.money.limit_queue import LimitQueue
from gateway.money.pricing import Pricing
from gateway.money.usage import UsageService
from gateway.throttling.hold_queue import HoldQueue
from gateway.throttling.rules.request_rates import RequestRates


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
        ledger_auditor=LedgerAuditor(
            store, store, pricing, budgets, clock, metrics, live.money, is_leader=base.membership.is_leader
        ),
        usage=UsageService(store, store, clock),
    )


async def build_rates(base: Base, upstream: UpstreamParts) -> RateParts:
    """Build request rates and the queue of creates over a rate. Where there can be several nodes, divide all rates."""
    metrics = base.metrics
    rates, hold_queue = await divide_rates(base, upstream.limiter) if is_divided(base) else _undivided(base)
    metrics.read_on_scrape("waiters", lambda: {"rate": len(hold_queue)})
    metrics.read_on_scrape("rate_subjects_kept", lambda: rates.kept)
    metrics.read_on_scrape("rate_subjects_dropped", lambda: rates.dropped)
    return RateParts(rates, hold_queue)


def _undivided(base: Base) -> tuple[RequestRates, HoldQueue]:
    rates = RequestRates()
    return rates, HoldQueue(base.clock, base.metrics, rates)
