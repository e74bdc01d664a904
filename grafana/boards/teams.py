"""Who uses it, for how much, and who is held back?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_TEAM = '{team=~"$team"}'
_BOTH = '{team=~"$team", target=~"$target"}'


def board() -> Dashboard:
    """Make the dashboard of teams."""
    return p.board(
        "teams",
        "Gateway: teams",
        "Budgets, spending, savings, predictions and limits, team by team.",
        {"Money": _money(), "Predictions": _predictions(), "Limits": _limits()},
        "team",
        "target",
    )


def _money() -> list[p.Panel]:
    return [
        p.bars("Budget used", "Spent and held, of each team's budget. A create that would go beyond is refused.",
               p.SHARE, {"{{team}} {{window}}": f"max by (team, window) ((@budget_spent_usd{_TEAM} "
                f"+ @budget_reserved_usd{_TEAM}) / @budget_limit_usd{_TEAM})"}, steps=p.bad_from(0.8, 1)),
        p.bars("Spent in the window", "By day and by month, UTC, from the ledger.", p.DOLLARS,
               {"{{team}} {{window}}": f"max by (team, window) (@budget_spent_usd{_TEAM})"}),
        p.bars("Budgets begin anew", "Time to the end of the day and of the month, UTC.", p.SECONDS,
               {"{{window}}": "max by (window) (@budget_reset_timestamp_seconds) - time()"}),
        p.lines("Spending", "Dollars an hour, as runs are settled.", p.DOLLARS,
                {"{{team}}": f"sum by (team) (rate(@spend_usd_total{_TEAM}[$__rate_interval])) * 3600"}, stacked=True),
        p.bars("Spent", "By team, in the range.", p.DOLLARS,
               {"{{team}}": f"sum by (team) (increase(@spend_usd_total{_TEAM}[$__range]))"}),
        p.bars("Saved", "By team and by what saved it, in the range.", p.DOLLARS,
               {"{{team}} {{reason}}": f"sum by (team, reason) (increase(@saved_usd_total{_TEAM}[$__range]))"},
               steps=p.GOOD),
        p.lines("Held for runs under way", "Reservations; each ends with its run.", p.DOLLARS,
                {"{{team}}": 'max by (team) (@budget_reserved_usd{team=~"$team", window="day"})'}, stacked=True),
        p.number("Unsettled", "Reservations older than an hour. There should be none but for long trainings.", p.COUNT,
                 "sum(@reservations_unsettled)", steps=p.bad_from(1, 10)),
        p.number("Ledger drift", "Sums that differed from the ledger's lines, since the process began.", p.COUNT,
                 "sum(@ledger_drift_total)", steps=p.bad_from(1, 1)),
        p.number("Stuck", "Reservations that had to be freed by hand of the bookkeeper, in the range.", p.COUNT,
                 "sum(increase(@reservations_stuck_total[$__range]))", steps=p.bad_from(1, 10)),
        p.number("Charges in doubt", "Charges that may be other than Replicate's own, in the range.", p.COUNT,
                 "sum(increase(@charges_in_doubt_total[$__range]))", steps=p.bad_from(1, 100)),
    ]  # fmt: skip


def _predictions() -> list[p.Panel]:
    return [
        p.bars("Predictions by team", "Recorded in the range, by how they were answered.", p.COUNT,
               {"{{team}} {{source}}":
                f"sum by (team, source) (increase(@predictions_created_total{_BOTH}[$__range]))"}),
        p.bars("Busiest targets", "Predictions in the range. Rare ones count as `other`.", p.COUNT,
               {"{{target}}": f"topk(10, sum by (target) (increase(@predictions_created_total{_BOTH}[$__range])))"}),
        p.bars("Ends by team", "How predictions ended in the range.", p.COUNT,
               {"{{team}} {{status}}":
                f"sum by (team, status) (increase(@predictions_finished_total{_TEAM}[$__range]))"}),
        p.lines("Predictions", "Predictions recorded, by team.", p.PER_SECOND,
                {"{{team}}": f"sum by (team) (rate(@predictions_created_total{_BOTH}[$__rate_interval]))"},
                stacked=True),
        p.lines("Run time by target", "From start to end: 95 % are faster.", p.SECONDS,
                p.quantiles("run_duration_seconds", "target", 'target=~"$target"', levels=(0.95,))),
        p.lines("Queue time by target", "From create to start: 95 % are faster.", p.SECONDS,
                p.quantiles("run_queue_seconds", "target", 'target=~"$target"', levels=(0.95,))),
    ]  # fmt: skip


def _limits() -> list[p.Panel]:
    return [
        p.lines("Refused by limits", "Creates that a limit of the team, a key or a user refused.", p.PER_SECOND,
                {"{{team}} {{reason}}":
                 f"sum by (team, reason) (rate(@quota_refusals_total{_TEAM}[$__rate_interval]))"}),
        p.lines("Runs and their limit", "Runs under way, and how many predictions the team may have.", p.COUNT,
                {"{{team}}": f"sum by (team) (@runs_active{_TEAM})",
                 "{{team}} limit": f"max by (team) (@concurrency_limit{_TEAM})"}),
        p.lines("Requests over a rate", "By whose rate it was.", p.REQUESTS,
                {"{{of}}": "sum by (of) (rate(@request_refusals_total[$__rate_interval]))"}),
        p.lines("Creates held", "Held over a rate, and what became of them.", p.PER_SECOND,
                {"{{result}}": "sum by (result) (rate(@creates_held_total[$__rate_interval]))"}),
        p.lines("How long they were held", "A create is held up to `max_wait_seconds`.", p.SECONDS,
                p.quantiles("create_hold_seconds"), steps=p.bad_from(10, 20)),
        p.lines("Creates that wait", "For a limit of their own, a request rate, a turn at the account.", p.COUNT,
                {"{{kind}}": 'sum by (kind) (@waiters{kind=~"limit|rate|account"})'}),
    ]  # fmt: skip
