"""Which part listens to which event of predictions and runs, in the order in which they are called."""

from gateway.money.accounting import Accounting
from gateway.money.limit_queue import LimitQueue
from gateway.operations.recent_errors import RecentErrors
from gateway.operations.run_timing import RunTimings
from gateway.outputs.copier import Copier
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.hits import HitRecorder
from gateway.predictions.queries import PredictionService
from gateway.streams.hub import StreamHub
from gateway.webhooks.dispatcher import WebhookDispatcher


def connect_listeners(
    events: PredictionEvents,
    *,
    predictions: PredictionService,
    hits: HitRecorder,
    accounting: Accounting,
    limit_queue: LimitQueue,
    dispatcher: WebhookDispatcher,
    hub: StreamHub,
    copier: Copier | None,
    run_timings: RunTimings,
    recent_errors: RecentErrors,
) -> None:
    """Add every listener. The order of these lines is the order of the calls."""
    events.add_created_listener(Listener.WEBHOOKS, dispatcher.on_prediction_created)
    events.add_progressed_listener(Listener.WEBHOOKS, dispatcher.on_run_progressed)
    # A reader's stream ends with the cancel; its webhook may come later.
    events.add_canceled_listener(Listener.STREAMS, lambda view: hub.check_canceled(view.run.id))
    events.add_canceled_listener(Listener.WEBHOOKS, dispatcher.on_prediction_canceled)

    # First what callers see: a poll right after the end is answered from memory.
    events.add_ended_listener(Listener.PREDICTIONS, predictions.on_run_ended)
    events.add_ended_listener(Listener.HITS, hits.on_run_ended)
    # The cost is learned before creates that waited for this run's place are estimated.
    events.add_ended_listener(Listener.ACCOUNTING, accounting.on_run_ended, is_retried=True)
    events.add_ended_listener(Listener.LIMIT_QUEUE, limit_queue.on_run_ended)
    events.add_ended_listener(Listener.WEBHOOKS, dispatcher.on_run_ended)
    if copier is not None:
        # Not retried here: if it fails, the copier finds the run again in the store's records.
        events.add_ended_listener(Listener.OUTPUT_COPIES, copier.on_run_ended)
    # Last what only operators see.
    events.add_ended_listener(Listener.RUN_TIMINGS, run_timings.on_run_ended)
    events.add_ended_listener(Listener.RECENT_ERRORS, recent_errors.on_run_ended)
