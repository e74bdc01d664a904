"""Builds every part in order of dependency, and connects the listeners to their events."""

import msgspec

from gateway.assembly.access import AccessParts, ModelParts, build_access, build_models
from gateway.assembly.base import Base
from gateway.assembly.events import connect_listeners
from gateway.assembly.files import FileParts, build_files
from gateway.assembly.limits import MoneyParts, RateParts, build_money, build_rates
from gateway.assembly.operations import OperationsParts, build_operations
from gateway.assembly.output_store import open_outputs
from gateway.assembly.outputs import OutputParts, build_outputs
from gateway.assembly.predictions import PredictionParts, build_predictions
from gateway.assembly.streams import StreamParts, build_streams
from gateway.assembly.upstream import UpstreamParts, build_upstream
from gateway.assembly.webhooks import ReceiverNetwork, WebhookParts, build_webhooks
from gateway.runtime.loops import BackgroundLoop


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a gateway, by concept."""

    base: Base
    upstream: UpstreamParts
    rates: RateParts
    money: MoneyParts
    models: ModelParts
    access: AccessParts
    predictions: PredictionParts
    streams: StreamParts
    webhooks: WebhookParts
    files: FileParts
    outputs: OutputParts | None
    operations: OperationsParts


async def build(base: Base, network: ReceiverNetwork) -> Parts:
    """Build every part. What they open is closed in reverse."""
    upstream = await build_upstream(base)
    money = await build_money(base)
    rates = await build_rates(base, upstream)
    models = build_models(base, upstream)
    access = await build_access(base, models)
    opened = await open_outputs(base)
    files = build_files(base, upstream)
    predictions = await build_predictions(base, upstream, money, access, models, files, opened)
    streams = build_streams(base, upstream, predictions)
    webhooks = build_webhooks(base, network, predictions, money)
    outputs = await build_outputs(base, opened, predictions, streams) if opened is not None else None
    operations = build_operations(base, upstream, money, rates, predictions, streams)
    parts = Parts(
        base=base,
        upstream=upstream,
        rates=rates,
        money=money,
        models=models,
        access=access,
        predictions=predictions,
        streams=streams,
        webhooks=webhooks,
        files=files,
        outputs=outputs,
        operations=operations,
    )
    connect_listeners(
        predictions.events,
        predictions=predictions.service,
        hits=predictions.hits,
        accounting=money.accounting,
        limit_queue=money.limit_queue,
        dispatcher=webhooks.dispatcher,
        hub=streams.hub,
        copier=outputs.copier if outputs is not None else None,
        run_timings=operations.run_timings,
        recent_errors=operations.recent_errors,
    )
    await _start_budgets(base, money, access, webhooks)
    return parts


async def _start_budgets(base: Base, money: MoneyParts, access: AccessParts, webhooks: WebhookParts) -> None:
    money.budgets.announce_through(webhooks.dispatcher)
    money.budgets.find_limits_through(access.authenticator)
    # Before anything is admitted.
    await money.ledger_auditor.start()
    base.keep_running(money.budgets.run, BackgroundLoop.BUDGETS)
    base.keep_running(money.ledger_auditor.run, BackgroundLoop.LEDGER_AUDIT)
