"""Is it well? What does it do, what does it cost, what does it save?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_ENDED = "@http_requests_total"


def board() -> Dashboard:
    """Make the dashboard that one looks at first."""
    return p.board(
        "overview",
        "Gateway: overview",
        "Requests, predictions, money and the gateway's own health, for all teams or some.",
        {"Now": _now(), "Predictions": _predictions(), "Requests": _requests(), "The process": _process()},
        "team",
        "target",
    )


def _now() -> list[p.Panel]:
    chosen = '{team=~"$team", target=~"$target"}'
    return [
        p.number("Predictions", "Predictions recorded in the range, shared ones included.", p.COUNT,
                 f"sum(increase(@predictions_created_total{chosen}[$__range]))"),
        p.number("Shared", "Hits and joined predictions among all: what needed no run of its own.", p.SHARE,
                 'sum(increase(@predictions_created_total{team=~"$team", target=~"$target", source=~"hit|joined"}'
                 f"[$__range])) / sum(increase(@predictions_created_total{chosen}[$__range]))"),
        p.number("Spent", "What settled runs cost in the range.", p.DOLLARS,
                 'sum(increase(@spend_usd_total{team=~"$team"}[$__range]))'),
        p.number("Saved", "What hits and joined predictions would have cost in the range.", p.DOLLARS,
                 'sum(increase(@saved_usd_total{team=~"$team"}[$__range]))', steps=p.GOOD),
        p.number("Polls per look upstream", "Looks at predictions that were answered here, for each one sent upstream.",
                 p.COUNT, 'sum(increase(@polls_total{served_by="gateway"}[$__range])) '
                 '/ sum(increase(@polls_total{served_by="upstream"}[$__range]))', steps=p.GOOD),
        p.number("Upstream", "The circuit breaker: open means that Replicate is left alone for a moment.", p.COUNT,
                 "max(@upstream_breaker_state)", steps=p.bad_from(1, 2),
                 says={"0": "answers", "1": "is tried", "2": "is left alone"}),
    ]  # fmt: skip


def _predictions() -> list[p.Panel]:
    return [
        p.lines("Predictions by source", "How creates were answered: new run (miss, bypass), joined, or hit.",
                p.PER_SECOND, {"{{source}}": "sum by (source) (rate(@predictions_created_total"
                               '{team=~"$team", target=~"$target"}[$__rate_interval]))'}, stacked=True),
        p.lines("Ends", "How predictions ended for their callers.", p.PER_SECOND,
                {"{{status}}": 'sum by (status) (rate(@predictions_finished_total{team=~"$team"}[$__rate_interval]))'},
                stacked=True),
        p.lines("Looks at predictions", "Answered here, and sent upstream: the second does not grow with the first.",
                p.PER_SECOND, {"{{served_by}}": "sum by (served_by) (rate(@polls_total[$__rate_interval]))"}),
        p.lines("Runs by team", "Upstream's predictions that are being followed.", p.COUNT,
                {"{{team}}": 'sum by (team) (@runs_active{team=~"$team"})'}, stacked=True),
        p.lines("Queue time", "From a run's create to its start: models that start cold.", p.SECONDS,
                p.quantiles("run_queue_seconds", where='target=~"$target"')),
        p.lines("Run time", "From a run's start to its end.", p.SECONDS,
                p.quantiles("run_duration_seconds", where='target=~"$target"')),
    ]  # fmt: skip


def _requests() -> list[p.Panel]:
    return [
        p.lines("Requests by status", "All answers of the public listener. 499: the caller left.", p.REQUESTS,
                {"{{code}}": f"sum by (code) (rate({_ENDED}[$__rate_interval]))"}, stacked=True),
        p.lines("Errors of ours", "The share of answers from 500 on; the alert's budget is 1 %.", p.SHARE,
                {"errors": f'(sum(rate({_ENDED}{{code=~"5.."}}[$__rate_interval])) or vector(0)) '
                           f"/ sum(rate({_ENDED}[$__rate_interval]))"}, steps=p.bad_from(0.001, 0.01)),
        p.lines("Time to answer", "Without streams, and without waiting for runs (`Prefer: wait` is in creates).",
                p.SECONDS, p.quantiles("http_request_duration_seconds", where='route!~"streams.*|.*create"')),
        p.lines("Overhead", "The gateway's own part of an answer: 95 % are faster.", p.SECONDS,
                p.quantiles("overhead_seconds", "path", levels=(0.95,)), steps=p.bad_from(0.025, 0.1)),
        p.lines("Under way", "Requests being answered; those of them that wait for a run or a create.", p.COUNT,
                {"requests": "sum(@http_requests_in_flight)", "{{kind}}": "sum by (kind) (@waiters)"}),
        p.lines("Refusals", "Requests that the gateway itself refused, by error.", p.REQUESTS,
                {"{{reason}}": "topk(5, sum by (reason) (rate(@refusals_total[$__rate_interval])))"}),
    ]  # fmt: skip


def _process() -> list[p.Panel]:
    return [
        p.lines("Event loop", "How late the loop wakes a task. Everything waits for it.", p.SECONDS,
                p.quantiles("event_loop_lag_seconds", levels=(0.5, 0.99)), steps=p.bad_from(0.05, 0.25)),
        p.lines("Store", "From asking the store to its answer: 99 % are faster.", p.SECONDS,
                p.quantiles("store_operation_duration_seconds", "lane", levels=(0.99,)), steps=p.bad_from(0.1, 1)),
        p.lines("Store: troubles", "Steps that failed, or were not answered in time.", p.PER_SECOND,
                {"{{lane}} {{result}}": "sum by (lane, result) "
                                        '(rate(@store_operations_total{result!="done"}[$__rate_interval]))'}),
        p.lines("Memory", "Resident memory, and the caches that are bounded by the config.", p.BYTES,
                {"resident": "max(process_resident_memory_bytes)", "predictions": "sum(@shown_bytes)",
                 "metadata": "sum(@metadata_cache_bytes)", "events": "sum(@kept_log_bytes)"}),
        p.lines("Processor", "Seconds of processor time for each second; 1 is one core, and all that one process uses.",
                p.SHARE, {"processor": "max(rate(process_cpu_seconds_total[$__rate_interval]))"},
                steps=p.bad_from(0.7, 0.9)),
        p.lines("Metrics themselves", "Label values counted as `other`, and log lines that were lost.", p.PER_SECOND,
                {"labels": "sum(rate(@labels_dropped_total[$__rate_interval])) or vector(0)",
                 "log lines": "sum(rate(@log_lines_dropped_total[$__rate_interval]))"}),
    ]  # fmt: skip
