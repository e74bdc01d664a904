"""Streams, webhooks and stored outputs."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p


def board() -> Dashboard:
    """Build the dashboard of streams, webhooks and stored outputs."""
    return p.board(
        "streams-webhooks",
        "Gateway: streams, webhooks, outputs",
        "Event streams to callers, webhook deliveries, copies of outputs.",
        {"Streams": _streams(), "Webhooks": _webhooks(), "Outputs": _outputs()},
    )


def _streams() -> list[p.Panel]:
    return [
        p.lines("Open streams", "Streams to callers, and streams read from upstream.", p.COUNT,
                {"{{side}}": "sum by (side) (@sse_streams)"}),
        p.lines("Time to first event", "From a caller's request to the first event of its stream.", p.SECONDS,
                p.quantiles("sse_first_event_seconds"), steps=p.bad_from(1, 5)),
        p.lines("Stream throughput", "Bytes of events written to callers.", p.BYTE_RATE,
                {"bytes": "sum(rate(@sse_bytes_total[$__rate_interval]))"}),
        p.lines("Events read", "Events read from upstream.", p.PER_SECOND,
                {"events": "sum(rate(@sse_events_total[$__rate_interval]))"}),
        p.bars("Closed streams", "By reason, in the time range. stalled: too slow; lost: resumed too late.",
               p.COUNT, {"{{how}}": "sum by (how) (increase(@streams_ended_total[$__range]))"}),
        p.bars("Resumed streams", "Streams resumed by callers, in the time range.", p.COUNT,
               {"{{result}}": "sum by (result) (increase(@sse_resumes_total[$__range]))"}),
        p.lines("Interrupted upstream streams", "Interrupted streams, by the reaction.", p.PER_SECOND,
                {"{{how}}": "sum by (how) (rate(@stream_breaks_total[$__rate_interval]))"}),
        p.lines("Event logs", "Event logs of finished runs in memory.", p.BYTES,
                {"kept": "sum(@kept_log_bytes)"}),
        p.lines("Unsaved event logs", "Event logs with events that are not yet stored.", p.COUNT,
                {"streams": "sum(@unkept_logs)"}, steps=p.bad_from(100, 1000)),
    ]  # fmt: skip


def _webhooks() -> list[p.Panel]:
    return [
        p.number("Queued webhooks", "Webhooks queued for delivery.", p.COUNT, "sum(@webhooks_queued)",
                 steps=p.bad_from(100, 1000)),
        p.number("Oldest queued", "Age of the oldest queued webhook.", p.SECONDS,
                 "max(@webhooks_oldest_queued_seconds)", steps=p.bad_from(300, 3600)),
        p.number("Dead letters", "Failed webhooks that are kept.", p.COUNT, "sum(@webhooks_dead)",
                 steps=p.bad_from(1, 100)),
        p.lines("Deliveries by result", "Attempts, by result.", p.PER_SECOND,
                {"{{result}}": "sum by (result) (rate(@webhook_deliveries_total[$__rate_interval]))"}, stacked=True),
        p.lines("Deliveries by event", "Attempts, by event.", p.PER_SECOND,
                {"{{event}}": "sum by (event) (rate(@webhook_deliveries_total[$__rate_interval]))"}, stacked=True),
        p.lines("Queue length", "Queued webhooks.", p.COUNT, {"queued": "sum(@webhooks_queued)"}),
        p.lines("Places by team", "Places in the queue: predictions in progress with a webhook, and queued webhooks.",
                p.COUNT, {"{{team}}": "sum by (team) (@webhook_places_taken)"}),
        p.bars("Dropped webhooks", "Webhooks that will not be sent, in the time range.", p.COUNT,
               {"{{reason}}": "sum by (reason) (increase(@webhooks_dropped_total[$__range]))"}),
    ]  # fmt: skip


def _outputs() -> list[p.Panel]:
    return [
        p.lines("Copy throughput", "Bytes of output files copied to the store.", p.BYTE_RATE,
                {"bytes": "sum(rate(@outputs_stored_bytes_total[$__rate_interval]))"}),
        p.lines("Download throughput", "Bytes of copies sent to callers.", p.BYTE_RATE,
                {"bytes": "sum(rate(@outputs_served_bytes_total[$__rate_interval]))"}),
        p.lines("Size of the output store", "Bytes in the output store, limited by `[outputs] max_bytes`.", p.BYTES,
                {"bytes": "sum(@outputs_bytes)"}),
        p.lines("Copies in progress", "Runs whose files are not yet copied, and files being sent.", p.COUNT,
                {"to be copied": "sum(@outputs_pending)", "being sent": "sum(@outputs_being_sent)"}),
        p.bars("Copied and deleted files", "Output files copied and deleted, in the time range.", p.COUNT,
               {"copied": "sum(increase(@outputs_stored_total[$__range]))",
                "deleted": "sum(increase(@outputs_deleted_total[$__range]))"}),
        p.bars("Failed copies", "Failed attempts to copy, in the time range.", p.COUNT,
               {"{{reason}}": "sum by (reason) (increase(@outputs_not_stored_total[$__range]))"}),
        p.bars("Copies removed early", "Copies removed before their predictions, in the time range.", p.COUNT,
               {"{{reason}}": "sum by (reason) (increase(@outputs_gone_total[$__range]))"}),
        p.lines("Upload spool", "Disk space used by uploads in progress.", p.BYTES,
                {"spooled": "sum(@upload_spool_bytes)"}),
    ]  # fmt: skip
