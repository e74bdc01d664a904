"""What bounds callers and shares the account, put together: money, rates, places."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from gateway.assembly import settings
from gateway.assembly.background import background
from gateway.assembly.parts import Money
from gateway.config import Config
from gateway.domain import windows
from gateway.domain.ports.clock import Clock
from gateway.domain.teams import Team
from gateway.metrics import Metrics
from gateway.money.accounting import Accounting
from gateway.money.budget_alerts import Budgets
from gateway.money.ledger_audit import LedgerAuditor
from gateway.money.limit_queue import LimitQueue
from gateway.money.pricing import Pricing
from gateway.money.usage import UsageService
from gateway.store.interface import Store
from gateway.throttling.hold_queue import HoldQueue
from gateway.throttling.rules.request_rates import RequestRates
from gateway.throttling.upstream_limiter import UpstreamLimiter


async def build_money(config: Config, teams: Sequence[Team], store: Store, clock: Clock, metrics: Metrics) -> Money:
    """Build what holds, charges and tells of money, with what the ledger has taught."""
    pricing = Pricing(settings.price_list(config), metrics)
    await pricing.load(store)
    budgets = Budgets(teams, settings.budget_webhooks(config), store, clock, metrics)
    limit_queue = LimitQueue(store, clock, metrics)
    limit_queue.when_exhausted(budgets.exhausted)
    ledger_auditor = LedgerAuditor(
        store, store, pricing, budgets, clock, metrics, retain_days=float(config.store.retain_days)
    )
    metrics.read_on_scrape("waiters", lambda: {"limit": limit_queue.waiting})
    metrics.read_on_scrape(
        "budget_reset_timestamp_seconds", lambda: {each: windows.ends_at(each, clock.now()) for each in windows.Window}
    )
    for team in teams:
        metrics.concurrency_limited(team.name, team.allowance.own.concurrent_predictions)
    return Money(
        pricing=pricing,
        limit_queue=limit_queue,
        accounting=Accounting(store, pricing, budgets, limit_queue, clock, metrics),
        budgets=budgets,
        ledger_auditor=ledger_auditor,
        usage=UsageService(store, store, clock),
    )


def build_account(
    config: Config, teams: Sequence[Team], clock: Clock, metrics: Metrics, stack: AsyncExitStack
) -> UpstreamLimiter:
    """Build the fair queue for the one account."""
    account = UpstreamLimiter(
        teams,
        clock,
        metrics,
        creates_per_minute=float(config.upstream.creates_per_minute),
        requests_per_minute=float(config.upstream.requests_per_minute),
    )
    background(stack, account.run(), "account")
    creates, requests = account.creates, account.requests
    metrics.read_on_scrape("waiters", lambda: {"account": len(creates), "call": len(requests)})
    metrics.read_on_scrape(
        "account_rate_per_minute",
        lambda: {"creates": creates.rate.rate.per_minute, "requests": requests.rate.rate.per_minute},
    )
    return account


def build_holding(clock: Clock, metrics: Metrics) -> HoldQueue:
    """Build the room for creates over a request rate."""
    hold_queue = HoldQueue(clock, metrics)
    metrics.read_on_scrape("waiters", lambda: {"rate": len(hold_queue)})
    return hold_queue


def build_request_rates(metrics: Metrics) -> RequestRates:
    """Build the table of request rates."""
    rates = RequestRates()
    metrics.read_on_scrape("rate_subjects_kept", lambda: rates.kept)
    metrics.read_on_scrape("rate_subjects_dropped", lambda: rates.dropped)
    return rates
