"""What goes to callers beside answers: does it arrive, and when?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p


def board() -> Dashboard:
    """Make the dashboard of streams, webhooks and stored outputs."""
    return p.board(
        "streams-webhooks",
        "Gateway: streams, webhooks, outputs",
        "Event streams to callers, webhooks on their way, copies of outputs.",
        {"Streams": _streams(), "Webhooks": _webhooks(), "Outputs": _outputs()},
    )


def _streams() -> list[p.Panel]:
    return [
        p.lines("Open streams", "To callers, and the one that each run has upstream.", p.COUNT,
                {"{{side}}": "sum by (side) (@sse_streams)"}),
        p.lines("First event", "From a caller's request to the first event of its stream.", p.SECONDS,
                p.quantiles("sse_first_event_seconds"), steps=p.bad_from(1, 5)),
        p.lines("Bytes", "Bytes of events written to callers.", p.BYTE_RATE,
                {"bytes": "sum(rate(@sse_bytes_total[$__rate_interval]))"}),
        p.lines("Events", "Events read from upstream.", p.PER_SECOND,
                {"events": "sum(rate(@sse_events_total[$__rate_interval]))"}),
        p.bars("Ends", "What ended callers' streams, in the range. stalled: too slow; lost: came back too late.",
               p.COUNT, {"{{how}}": "sum by (how) (increase(@streams_ended_total[$__range]))"}),
        p.bars("Taken up again", "Streams that callers resumed, in the range.", p.COUNT,
               {"{{result}}": "sum by (result) (increase(@sse_resumes_total[$__range]))"}),
        p.lines("Upstream's breaks", "Upstream's streams that broke off, and what was done.", p.PER_SECOND,
                {"{{how}}": "sum by (how) (rate(@stream_breaks_total[$__rate_interval]))"}),
        p.lines("Event logs", "Bytes of finished runs' events kept in memory.", p.BYTES,
                {"kept": "sum(@kept_log_bytes)"}),
        p.lines("Not yet stored", "Streams with news that the store has not.", p.COUNT,
                {"streams": "sum(@unkept_logs)"}, steps=p.bad_from(100, 1000)),
    ]  # fmt: skip


def _webhooks() -> list[p.Panel]:
    return [
        p.number("Waiting", "Webhooks that wait for delivery.", p.COUNT, "sum(@webhooks_queued)",
                 steps=p.bad_from(100, 1000)),
        p.number("Oldest", "Age of the oldest webhook that waits.", p.SECONDS, "max(@webhooks_oldest_queued_seconds)",
                 steps=p.bad_from(300, 3600)),
        p.number("Dead", "Webhooks that were given up and are kept.", p.COUNT, "sum(@webhooks_dead)",
                 steps=p.bad_from(1, 100)),
        p.lines("Deliveries", "Tries, by result.", p.PER_SECOND,
                {"{{result}}": "sum by (result) (rate(@webhook_deliveries_total[$__rate_interval]))"}, stacked=True),
        p.lines("By event", "Tries, by event.", p.PER_SECOND,
                {"{{event}}": "sum by (event) (rate(@webhook_deliveries_total[$__rate_interval]))"}, stacked=True),
        p.lines("The queue", "Webhooks that wait.", p.COUNT, {"queued": "sum(@webhooks_queued)"}),
        p.bars("Not sent", "Webhooks that will not be sent, in the range.", p.COUNT,
               {"{{reason}}": "sum by (reason) (increase(@webhooks_dropped_total[$__range]))"}),
    ]  # fmt: skip


def _outputs() -> list[p.Panel]:
    return [
        p.lines("Copied", "Bytes of output files that were copied.", p.BYTE_RATE,
                {"bytes": "sum(rate(@outputs_stored_bytes_total[$__rate_interval]))"}),
        p.lines("Served", "Bytes of copies sent to callers.", p.BYTE_RATE,
                {"bytes": "sum(rate(@outputs_served_bytes_total[$__rate_interval]))"}),
        p.lines("Held", "Bytes in the output store, bounded by `[outputs] max_bytes`.", p.BYTES,
                {"bytes": "sum(@outputs_bytes)"}),
        p.lines("Under way", "Runs whose files wait to be copied, and files that are being sent.", p.COUNT,
                {"to be copied": "sum(@outputs_pending)", "being sent": "sum(@outputs_being_sent)"}),
        p.bars("Files", "Output files in the range: copied, deleted.", p.COUNT,
               {"copied": "sum(increase(@outputs_stored_total[$__range]))",
                "deleted": "sum(increase(@outputs_deleted_total[$__range]))"}),
        p.bars("Not copied", "Attempts that came to nothing, in the range.", p.COUNT,
               {"{{reason}}": "sum by (reason) (increase(@outputs_not_stored_total[$__range]))"}),
        p.bars("Gone early", "Copies that went before their predictions, in the range.", p.COUNT,
               {"{{reason}}": "sum by (reason) (increase(@outputs_gone_total[$__range]))"}),
        p.lines("Uploads on disk", "Room that uploads have while they pass.", p.BYTES,
                {"spooled": "sum(@upload_spool_bytes)"}),
    ]  # fmt: skip
