"""Upstream: calls to Replicate, its errors and limits, and sharing of the account."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_CALLS = "@upstream_requests_total"


def board() -> Dashboard:
    """Build the upstream dashboard."""
    return p.board(
        "upstream",
        "Gateway: upstream",
        "Calls to Replicate, its errors and limits, and sharing of the account.",
        {"Now": _now(), "Calls": _calls(), "Account limits": _account(), "Runs": _runs()},
        "target",
    )


def _now() -> list[p.Panel]:
    return [
        p.number("Circuit breaker", "Open: Replicate failed several times in a row, so only probes are sent.", p.COUNT,
                 "max(@upstream_breaker_state)", steps=p.bad_from(1, 2),
                 value_names={"0": "closed", "1": "half open", "2": "open"}),
        p.number("Last success", "Time since the last successful response.", p.SECONDS,
                 "time() - max(@upstream_last_success_timestamp_seconds)", steps=p.bad_from(300, 900)),
        p.number("Token refused", "Responses that refused the account's token, in the time range.", p.COUNT,
                 "sum(increase(@upstream_token_refused_total[$__range]))", steps=p.bad_from(1, 1)),
        p.number("Throttled", "Responses with 429, in the time range.", p.COUNT,
                 f'sum(increase({_CALLS}{{code="429"}}[$__range])) or vector(0)', steps=p.bad_from(1, 100)),
        p.number("Creates", "Creates sent, in the time range.", p.COUNT,
                 f'sum(increase({_CALLS}{{operation=~".*predictions.create|trainings.create"}}[$__range]))'),
        p.number("Polls", "Polls of runs, in the time range. They do not grow with the number of callers.", p.COUNT,
                 'sum(increase(@polls_total{served_by="upstream"}[$__range]))'),
    ]  # fmt: skip


def _calls() -> list[p.Panel]:
    return [
        p.lines("Calls by operation", "Calls sent upstream.", p.REQUESTS,
                {"{{operation}}": f"sum by (operation) (rate({_CALLS}[$__rate_interval]))"}, stacked=True),
        p.lines("Calls by outcome", "Status, or kind of failure.", p.REQUESTS,
                {"{{code}}": f"sum by (code) (rate({_CALLS}[$__rate_interval]))"}, stacked=True),
        p.lines("Failure ratio", "Fraction of calls without a response, or with status 500 or above.", p.SHARE,
                {"failures": f'sum(rate({_CALLS}{{code=~"5..|unreachable|timeout|broken|failed"}}[$__rate_interval])) '
                             f"/ sum(rate({_CALLS}[$__rate_interval]))"},
                steps=p.bad_from(0.01, 0.05)),
        p.lines("Latency", "95th percentile by operation, without streams.", p.SECONDS,
                p.quantiles("upstream_request_duration_seconds", "operation", 'operation!="streams.read"', (0.95,))),
        p.lines("Retries", "Reads repeated after a 429, a lost connection, or a response that is not the API's.",
                p.PER_SECOND, {"retries": "sum(rate(@upstream_retries_total[$__rate_interval]))"}),
        p.lines("Cancels", "By result: left (the run continues for others), sent upstream, or already ended.",
                p.PER_SECOND, {"{{result}}": "sum by (result) (rate(@cancels_total[$__rate_interval]))"}),
    ]  # fmt: skip


def _account() -> list[p.Panel]:
    return [
        p.lines("Account rate", "Calls per minute that Replicate currently accepts, as learned.", p.COUNT,
                {"{{lane}}": "max by (lane) (@account_rate_per_minute)"}),
        p.lines("Queue time", "95th percentile of the wait for the account's rate.", p.SECONDS,
                p.quantiles("account_wait_seconds", "lane", levels=(0.95,)), steps=p.bad_from(5, 20)),
        p.lines("Queued calls", "Creates, and other calls.", p.COUNT,
                {"creates": 'sum(@waiters{kind="account"})', "other calls": 'sum(@waiters{kind="call"})'}),
        p.lines("Refused calls", "Calls that waited too long, or found the queue full.", p.PER_SECOND,
                {"{{lane}} {{reason}}": "sum by (lane, reason) (rate(@account_refusals_total[$__rate_interval]))"}),
        p.lines("Throttled calls", "Responses with 429, by lane.", p.PER_SECOND,
                {"{{lane}}": "sum by (lane) (rate(@account_throttles_total[$__rate_interval]))"}),
        p.bars("Uncertain creates", "Creates with an unknown outcome, by result, in the time range.", p.COUNT,
               {"{{result}}": "sum by (result) (increase(@orphans_total[$__range]))"}),
    ]  # fmt: skip


def _runs() -> list[p.Panel]:
    return [
        p.lines("Runs followed", "Runs that the gateway follows until they end.", p.COUNT,
                {"runs": "sum(@runs_followed)"}),
        p.lines("Queue time by target", "95th percentile of the time from create to start.", p.SECONDS,
                p.quantiles("run_queue_seconds", "target", 'target=~"$target"', levels=(0.95,))),
        p.lines("Run time by target", "95th percentile of the time from start to end.", p.SECONDS,
                p.quantiles("run_duration_seconds", "target", 'target=~"$target"', levels=(0.95,))),
    ]  # fmt: skip
