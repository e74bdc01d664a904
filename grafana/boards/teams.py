"""Teams: budgets, spend, savings, predictions and limits."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_TEAM = '{team=~"$team"}'
_BOTH = '{team=~"$team", target=~"$target"}'


def board() -> Dashboard:
    """Build the dashboard of teams."""
    return p.board(
        "teams",
        "Gateway: teams",
        "Budgets, spend, savings, predictions and limits by team.",
        {"Money": _money(), "Predictions": _predictions(), "Limits": _limits()},
        "team",
        "target",
    )


def _money() -> list[p.Panel]:
    return [
        p.bars("Budget used", "Spent and held, as a fraction of the budget. Creates above 100 % are refused.",
               p.SHARE, {"{{team}} {{window}}": f"max by (team, window) ((@budget_spent_usd{_TEAM} "
                f"+ @budget_reserved_usd{_TEAM}) / @budget_limit_usd{_TEAM})"}, steps=p.bad_from(0.8, 1)),
        p.bars("Spend of day and month", "From the ledger, UTC.", p.DOLLARS,
               {"{{team}} {{window}}": f"max by (team, window) (@budget_spent_usd{_TEAM})"}),
        p.bars("Budget reset", "Time until the end of the day and month, UTC.", p.SECONDS,
               {"{{window}}": "max by (window) (@budget_reset_timestamp_seconds) - time()"}),
        p.lines("Spend rate", "Dollars per hour, by time of settlement.", p.DOLLARS,
                {"{{team}}": f"sum by (team) (rate(@spend_usd_total{_TEAM}[$__rate_interval])) * 3600"}, stacked=True),
        p.bars("Spend by team", "In the time range.", p.DOLLARS,
               {"{{team}}": f"sum by (team) (increase(@spend_usd_total{_TEAM}[$__range]))"}),
        p.bars("Savings by team", "By reason, in the time range.", p.DOLLARS,
               {"{{team}} {{reason}}": f"sum by (team, reason) (increase(@saved_usd_total{_TEAM}[$__range]))"},
               steps=p.GOOD),
        p.lines("Reserved for runs in progress", "Reserved dollars.", p.DOLLARS,
                {"{{team}}": 'max by (team) (@budget_reserved_usd{team=~"$team", window="day"})'}, stacked=True),
        p.number("Old reservations", "Reservations older than an hour. Only long trainings should cause them.", p.COUNT,
                 "sum(@reservations_unsettled)", steps=p.bad_from(1, 10)),
        p.number("Ledger drift", "Sums that differed from the ledger's entries, since the process started.", p.COUNT,
                 "sum(@ledger_drift_total)", steps=p.bad_from(1, 1)),
        p.number("Stuck reservations", "Reservations released by the ledger audit, in the time range.", p.COUNT,
                 "sum(increase(@reservations_stuck_total[$__range]))", steps=p.bad_from(1, 10)),
        p.number("Charges in doubt", "Charges that may differ from Replicate's, in the time range.", p.COUNT,
                 "sum(increase(@charges_in_doubt_total[$__range]))", steps=p.bad_from(1, 100)),
        p.number("Values of a cost tag", "Today, of the team and tag with the most. Usage counts `[tags] max_values` "
                 "(1000) by name, and the rest together.", p.COUNT, "max(@tag_values)", steps=p.bad_from(800, 1001)),
    ]  # fmt: skip


def _predictions() -> list[p.Panel]:
    return [
        p.bars("Predictions by team", "Created in the time range, by source.", p.COUNT,
               {"{{team}} {{source}}":
                f"sum by (team, source) (increase(@predictions_created_total{_BOTH}[$__range]))"}),
        p.bars("Busiest targets", "Predictions in the time range. Rare targets count as `other`.", p.COUNT,
               {"{{target}}": f"topk(10, sum by (target) (increase(@predictions_created_total{_BOTH}[$__range])))"}),
        p.bars("Completed by team", "Ended predictions in the time range, by final status.", p.COUNT,
               {"{{team}} {{status}}":
                f"sum by (team, status) (increase(@predictions_finished_total{_TEAM}[$__range]))"}),
        p.lines("Predictions", "Predictions created, by team.", p.PER_SECOND,
                {"{{team}}": f"sum by (team) (rate(@predictions_created_total{_BOTH}[$__rate_interval]))"},
                stacked=True),
        p.lines("Run time by target", "95th percentile of the time from start to end.", p.SECONDS,
                p.quantiles("run_duration_seconds", "target", 'target=~"$target"', levels=(0.95,))),
        p.lines("Queue time by target", "95th percentile of the time from create to start.", p.SECONDS,
                p.quantiles("run_queue_seconds", "target", 'target=~"$target"', levels=(0.95,))),
    ]  # fmt: skip


def _limits() -> list[p.Panel]:
    return [
        p.lines("Refused by limits", "Creates refused by a limit of the team, a key, a user or a tag.", p.PER_SECOND,
                {"{{team}} {{reason}}":
                 f"sum by (team, reason) (rate(@quota_refusals_total{_TEAM}[$__rate_interval]))"}),
        p.lines("Concurrency", "Runs in progress, and the team's limit of concurrent predictions.", p.COUNT,
                {"{{team}}": f"sum by (team) (@runs_active{_TEAM})",
                 "{{team}} limit": f"max by (team) (@concurrency_limit{_TEAM})"}),
        p.lines("Requests over a rate limit", "By subject of the limit.", p.REQUESTS,
                {"{{of}}": "sum by (of) (rate(@request_refusals_total[$__rate_interval]))"}),
        p.lines("Queued creates", "Creates queued over a rate limit, by result.", p.PER_SECOND,
                {"{{result}}": "sum by (result) (rate(@creates_held_total[$__rate_interval]))"}),
        p.lines("Queue time of creates", "A create is queued for at most `max_wait_seconds`.", p.SECONDS,
                p.quantiles("create_hold_seconds"), steps=p.bad_from(10, 20)),
        p.lines("Waiting creates", "By what they wait for: a limit, a request rate, the account's rate.", p.COUNT,
                {"{{kind}}": 'sum by (kind) (@waiters{kind=~"limit|rate|account"})'}),
    ]  # fmt: skip
