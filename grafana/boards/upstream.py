"""How is Replicate, and how is the one account shared?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_CALLS = "@upstream_requests_total"


def board() -> Dashboard:
    """Make the dashboard of the calls upstream."""
    return p.board(
        "upstream",
        "Gateway: upstream",
        "Calls to Replicate, its errors and limits, and how the account is shared.",
        {"Now": _now(), "Calls": _calls(), "The account": _account(), "Runs": _runs()},
        "target",
    )


def _now() -> list[p.Panel]:
    return [
        p.number("Breaker", "Open: Replicate did not answer several times in a row, and is left alone.", p.COUNT,
                 "max(@upstream_breaker_state)", steps=p.bad_from(1, 2),
                 says={"0": "closed", "1": "half open", "2": "open"}),
        p.number("Last success", "Since Replicate last answered with a success.", p.SECONDS,
                 "time() - max(@upstream_last_success_timestamp_seconds)", steps=p.bad_from(300, 900)),
        p.number("Token refused", "Times Replicate refused the account's token, in the range.", p.COUNT,
                 "sum(increase(@upstream_token_refused_total[$__range]))", steps=p.bad_from(1, 1)),
        p.number("Throttled", "Answers 429, in the range.", p.COUNT,
                 f'sum(increase({_CALLS}{{code="429"}}[$__range])) or vector(0)', steps=p.bad_from(1, 100)),
        p.number("Creates", "Creates that were sent, in the range.", p.COUNT,
                 f'sum(increase({_CALLS}{{operation=~".*predictions.create|trainings.create"}}[$__range]))'),
        p.number("Looks", "Looks at runs, in the range: they do not grow with callers.", p.COUNT,
                 'sum(increase(@polls_total{served_by="upstream"}[$__range]))'),
    ]  # fmt: skip


def _calls() -> list[p.Panel]:
    return [
        p.lines("By operation", "Calls sent upstream.", p.REQUESTS,
                {"{{operation}}": f"sum by (operation) (rate({_CALLS}[$__rate_interval]))"}, stacked=True),
        p.lines("By outcome", "Status, or how it failed.", p.REQUESTS,
                {"{{code}}": f"sum by (code) (rate({_CALLS}[$__rate_interval]))"}, stacked=True),
        p.lines("Failures", "The share of calls that got no answer, or one of 500 and above.", p.SHARE,
                {"failures": f'sum(rate({_CALLS}{{code=~"5..|unreachable|timeout|broken|failed"}}[$__rate_interval])) '
                             f"/ sum(rate({_CALLS}[$__rate_interval]))"},
                steps=p.bad_from(0.01, 0.05)),
        p.lines("Time to answer", "95 % are faster; without streams.", p.SECONDS,
                p.quantiles("upstream_request_duration_seconds", "operation", 'operation!="streams.read"', (0.95,))),
        p.lines("Repeated reads", "Throttled, answered by something that is not the API, or lost.", p.PER_SECOND,
                {"repeated": "sum(rate(@upstream_retries_total[$__rate_interval]))"}),
        p.lines("Cancels", "The run goes on for others (left), Replicate was asked, or it was over.", p.PER_SECOND,
                {"{{result}}": "sum by (result) (rate(@cancels_total[$__rate_interval]))"}),
    ]  # fmt: skip


def _account() -> list[p.Panel]:
    return [
        p.lines("Rate that Replicate takes", "Calls a minute, as far as is known.", p.COUNT,
                {"{{lane}}": "max by (lane) (@account_rate_per_minute)"}),
        p.lines("Waits for a turn", "95 % are shorter.", p.SECONDS,
                p.quantiles("account_wait_seconds", "lane", levels=(0.95,)), steps=p.bad_from(5, 20)),
        p.lines("Waiting", "Creates, and other calls.", p.COUNT,
                {"creates": 'sum(@waiters{kind="account"})', "other calls": 'sum(@waiters{kind="call"})'}),
        p.lines("Without a turn", "Calls that got none in time, or found the queue full.", p.PER_SECOND,
                {"{{lane}} {{reason}}": "sum by (lane, reason) (rate(@account_refusals_total[$__rate_interval]))"}),
        p.lines("Throttled", "Answers 429, by what they were for.", p.PER_SECOND,
                {"{{lane}}": "sum by (lane) (rate(@account_throttles_total[$__rate_interval]))"}),
        p.bars("Uncertain creates", "What became of them, in the range.", p.COUNT,
               {"{{result}}": "sum by (result) (increase(@orphans_total[$__range]))"}),
    ]  # fmt: skip


def _runs() -> list[p.Panel]:
    return [
        p.lines("Followed", "Runs that are being followed to their end.", p.COUNT, {"runs": "sum(@runs_followed)"}),
        p.lines("Queue time by target", "From create to start: 95 % are faster.", p.SECONDS,
                p.quantiles("run_queue_seconds", "target", 'target=~"$target"', levels=(0.95,))),
        p.lines("Run time by target", "From start to end: 95 % are faster.", p.SECONDS,
                p.quantiles("run_duration_seconds", "target", 'target=~"$target"', levels=(0.95,))),
    ]  # fmt: skip
