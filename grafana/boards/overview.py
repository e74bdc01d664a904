"""Overview: health, traffic, spend and savings."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_REQUESTS = "@http_requests_total"


def board() -> Dashboard:
    """Build the overview dashboard."""
    return p.board(
        "overview",
        "Gateway: overview",
        "Requests, predictions, money and health of the gateway.",
        {
            "Now": _now(),
            "Objectives": _objectives(),
            "Predictions": _predictions(),
            "Requests": _requests(),
            "Process": _process(),
        },
        "team",
        "target",
    )


def _now() -> list[p.Panel]:
    chosen = '{team=~"$team", target=~"$target"}'
    return [
        p.number("Predictions", "Predictions created in the time range, including shared ones.", p.COUNT,
                 f"sum(increase(@predictions_created_total{chosen}[$__range]))"),
        p.number("Shared", "Fraction of predictions that needed no new run: hits and joined predictions.", p.SHARE,
                 'sum(increase(@predictions_created_total{team=~"$team", target=~"$target", source=~"hit|joined"}'
                 f"[$__range])) / sum(increase(@predictions_created_total{chosen}[$__range]))"),
        p.number("Spent", "Cost of runs settled in the time range.", p.DOLLARS,
                 'sum(increase(@spend_usd_total{team=~"$team"}[$__range]))'),
        p.number("Saved", "What hits and joined predictions would have cost in the time range.", p.DOLLARS,
                 'sum(increase(@saved_usd_total{team=~"$team"}[$__range]))', steps=p.GOOD),
        p.number("Polls per upstream poll", "Polls of predictions answered by the gateway, per poll sent upstream.",
                 p.COUNT, 'sum(increase(@polls_total{served_by="gateway"}[$__range])) '
                 '/ sum(increase(@polls_total{served_by="upstream"}[$__range]))', steps=p.GOOD),
        p.number("Circuit breaker", "Open: Replicate does not respond, so only probes are sent.", p.COUNT,
                 "max(@upstream_breaker_state)", steps=p.bad_from(1, 2),
                 value_names={"0": "closed", "1": "half open", "2": "open"}),
    ]  # fmt: skip


def _objectives() -> list[p.Panel]:
    """Return panels of docs/slo.md. Its recording rules have no labels, so a time range is computed here."""
    asked = f'{_REQUESTS}{{route!~"healthz|readyz"}}'
    failed = f'{_REQUESTS}{{code=~"5..", route!~"healthz|readyz"}}'
    fast = '@overhead_seconds_bucket{path=~"hit|poll", le="0.1"}'
    counted = '@overhead_seconds_count{path=~"hit|poll"}'
    left = p.good_from(0, 0.25)
    return [
        p.number("Availability", "Fraction of responses without a server error, in the time range. Objective: 99 %.",
                 p.SHARE, f"1 - (sum(increase({failed}[$__range])) or vector(0)) / sum(increase({asked}[$__range]))",
                 steps=p.good_from(0.99, 0.999)),
        p.number("Error budget left", "Of the 1 % of responses that may fail within 30 days.", p.SHARE,
                 f"1 - (sum(increase({failed}[30d])) or vector(0)) / sum(increase({asked}[30d])) / 0.01", steps=left),
        p.number("Fast responses", "Fraction of cache hits and polls that took at most 100 ms, in the time range. "
                 "Objective: 99 %.", p.SHARE, f"sum(increase({fast}[$__range])) / sum(increase({counted}[$__range]))",
                 steps=p.good_from(0.99, 0.999)),
        p.number("Latency budget left", "Of the 1 % of cache hits and polls that may be slower within 30 days.",
                 p.SHARE, f"1 - (1 - sum(increase({fast}[30d])) / sum(increase({counted}[30d]))) / 0.01", steps=left),
    ]  # fmt: skip


def _predictions() -> list[p.Panel]:
    return [
        p.lines("Predictions by source", "Outcome of creates: new run (miss, bypass), joined, or hit.",
                p.PER_SECOND, {"{{source}}": "sum by (source) (rate(@predictions_created_total"
                               '{team=~"$team", target=~"$target"}[$__rate_interval]))'}, stacked=True),
        p.lines("Completed predictions", "Ended predictions by final status.", p.PER_SECOND,
                {"{{status}}": 'sum by (status) (rate(@predictions_finished_total{team=~"$team"}[$__rate_interval]))'},
                stacked=True),
        p.lines("Polls of predictions", "Answered by the gateway, and sent upstream.",
                p.PER_SECOND, {"{{served_by}}": "sum by (served_by) (rate(@polls_total[$__rate_interval]))"}),
        p.lines("Runs by team", "Runs in progress upstream.", p.COUNT,
                {"{{team}}": 'sum by (team) (@runs_active{team=~"$team"})'}, stacked=True),
        p.lines("Queue time", "Time from create to start of a run, including cold starts.", p.SECONDS,
                p.quantiles("run_queue_seconds", where='target=~"$target"')),
        p.lines("Run time", "Time from start to end of a run.", p.SECONDS,
                p.quantiles("run_duration_seconds", where='target=~"$target"')),
    ]  # fmt: skip


def _requests() -> list[p.Panel]:
    return [
        p.lines("Requests by status", "All responses of the public listener. 499: the caller disconnected.", p.REQUESTS,
                {"{{code}}": f"sum by (code) (rate({_REQUESTS}[$__rate_interval]))"}, stacked=True),
        p.lines("Server errors", "Fraction of responses with status 500 or above. The objective is below 1 %.", p.SHARE,
                {"errors": f'(sum(rate({_REQUESTS}{{code=~"5.."}}[$__rate_interval])) or vector(0)) '
                           f"/ sum(rate({_REQUESTS}[$__rate_interval]))"}, steps=p.bad_from(0.001, 0.01)),
        p.lines("Latency", "Response time without streams and creates (which can wait for a run: `Prefer: wait`).",
                p.SECONDS, p.quantiles("http_request_duration_seconds", where='route!~"streams.*|.*create"')),
        p.lines("Overhead", "95th percentile of the response time spent in the gateway itself.", p.SECONDS,
                p.quantiles("overhead_seconds", "path", levels=(0.95,)), steps=p.bad_from(0.025, 0.1)),
        p.lines("In flight", "Requests in progress, and those of them that wait, by reason.", p.COUNT,
                {"requests": "sum(@http_requests_in_flight)", "{{kind}}": "sum by (kind) (@waiters)"}),
        p.lines("Refusals", "Requests refused by the gateway, by error.", p.REQUESTS,
                {"{{reason}}": "topk(5, sum by (reason) (rate(@refusals_total[$__rate_interval])))"}),
        p.lines("CORS refusals", "Pages that may not read the response: their origin is not listed.",
                p.REQUESTS, {"{{kind}}": "sum by (kind) (rate(@cors_refusals_total[$__rate_interval]))"}),
    ]  # fmt: skip


def _process() -> list[p.Panel]:
    return [
        p.lines("Event loop lag", "Delay of wake-ups. It delays every request.", p.SECONDS,
                p.quantiles("event_loop_lag_seconds", levels=(0.5, 0.99)), steps=p.bad_from(0.05, 0.25)),
        p.lines("Store latency", "99th percentile of store operations.", p.SECONDS,
                p.quantiles("store_operation_duration_seconds", "lane", levels=(0.99,)), steps=p.bad_from(0.1, 1)),
        p.lines("Store errors", "Operations that failed or timed out.", p.PER_SECOND,
                {"{{lane}} {{result}}": "sum by (lane, result) "
                                        '(rate(@store_operations_total{result!="done"}[$__rate_interval]))'}),
        p.lines("Memory", "Resident memory, and the caches whose size is limited by the config.", p.BYTES,
                {"resident": "max(process_resident_memory_bytes)", "predictions": "sum(@shown_bytes)",
                 "metadata": "sum(@metadata_cache_bytes)", "events": "sum(@kept_log_bytes)"}),
        p.lines("CPU", "CPU seconds per second. A process uses one core at most (100 %).",
                p.SHARE, {"CPU": "max(rate(process_cpu_seconds_total[$__rate_interval]))"},
                steps=p.bad_from(0.7, 0.9)),
        p.lines("Loop crashes", "Background loops that crashed and start again after a pause.", p.COUNT,
                {"{{loop}}": "sum by (loop) (increase(@loop_crashes_total[$__rate_interval]))"}),
        p.lines("Dropped labels and log lines", "Label values counted as `other`, and log lines that were dropped.",
                p.PER_SECOND, {"labels": "sum(rate(@labels_dropped_total[$__rate_interval])) or vector(0)",
                               "log lines": "sum(rate(@log_lines_dropped_total[$__rate_interval]))"}),
    ]  # fmt: skip
