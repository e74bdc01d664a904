"""Nodes: leases, shares of rates, news, and the database, where several gateways serve from one PostgreSQL."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_WHO = "{{instance}} {{node}}"


def board() -> Dashboard:
    """Build the dashboard of nodes."""
    return p.board(
        "nodes",
        "Gateway: nodes",
        "Leases, shares of rates and notifications of nodes that share one PostgreSQL. With SQLite most panels are 0.",
        {"Now": _now(), "Leases and runs": _leases(), "Shares of rates": _shares(), "Notifications": _news(),
         "Database": _database()},
    )  # fmt: skip


def _by_node(query: str) -> str:
    return f"max by (instance, node) ({query})"


def _now() -> list[p.Panel]:
    return [
        p.number("Nodes alive", "Nodes with a valid lease.", p.COUNT, "sum(@node_alive)"),
        p.number("Leaders", "Nodes that lead. One does; for some seconds after it has ended, none.", p.COUNT,
                 "sum(@node_leads)"),
        p.number("Nodes that died", "Nodes that stopped renewing their leases, in the time range.", p.COUNT,
                 "sum(increase(@nodes_died_total[$__range]))", steps=p.bad_from(1, 3)),
        p.number("Lost leases", "Leases that a running node could not renew in time, in the time range.", p.COUNT,
                 "sum(increase(@node_leases_lost_total[$__range]))", steps=p.bad_from(1, 3)),
        p.number("Runs taken over", "Runs of nodes that had ended, in the time range.", p.COUNT,
                 "sum(increase(@runs_taken_over_total[$__range]))"),
        p.number("Clock difference", "Largest difference of a node's clock from the database's.", p.SECONDS,
                 "max(abs(@store_clock_skew_seconds))", steps=p.bad_from(0.5, 2)),
    ]  # fmt: skip


def _leases() -> list[p.Panel]:
    return [
        p.lines("Lease age", "Time since a node last renewed its lease, which lasts 10 seconds.", p.SECONDS,
                {_WHO: _by_node("@node_lease_age_seconds")}, steps=p.bad_from(5, 10)),
        p.lines("Runs by node", "Runs that each node follows or searches for.", p.COUNT,
                {_WHO: _by_node("@node_owned_runs")}, stacked=True),
        p.lines("Nodes seen", "Nodes that have not ended, as each node sees it. All should see the same.", p.COUNT,
                {_WHO: _by_node("@nodes_alive")}),
        p.lines("Requests by node", "Responses of the public listener.", p.REQUESTS,
                {_WHO: "sum by (instance, node) (rate(@http_requests_total[$__rate_interval]))"}, stacked=True),
        p.lines("Event loop lag by node", "99th percentile of the delay of wake-ups.", p.SECONDS,
                {_WHO: "histogram_quantile(0.99, sum by (le, instance, node) "
                       "(rate(@event_loop_lag_seconds_bucket[$__rate_interval])))"}, steps=p.bad_from(0.05, 0.25)),
        p.lines("Runs of other nodes", "Runs of other nodes that requests wait for. They are read from the store.",
                p.COUNT, {_WHO: _by_node("@runs_observed")}),
    ]  # fmt: skip


def _shares() -> list[p.Panel]:
    return [
        p.lines("Share of the account", "Fraction of the account's rate that each node may use. 0: the rate is too low "
                "to be divided, and nodes take turns.", p.SHARE,
                {f"{{{{lane}}}} {_WHO}": "max by (lane, instance, node) (@account_share)"}),
        p.lines("Shares of request rates", "Rates of teams, keys, users and addresses of which a node holds a share.",
                p.COUNT, {_WHO: _by_node("@rate_shares")}),
        p.lines("Requests counted in the database", "Because the node had no share of the rate, or had used it up.",
                p.PER_SECOND, {"{{result}}": "sum by (result) (rate(@rate_permits_total[$__rate_interval]))"}),
    ]  # fmt: skip


def _news() -> list[p.Panel]:
    return [
        p.lines("Notification delay", "Time from an event until the database has passed on its notification.",
                p.SECONDS, p.quantiles("news_seconds"), steps=p.bad_from(0.1, 1)),
        p.lines("Notifications waiting to be sent", "Names in notifications that are not sent yet.", p.COUNT,
                {_WHO: _by_node("@news_waiting")}),
        p.lines("Notification connections", "1: notifications arrive. 0: the node reads the database every second.",
                p.COUNT, {_WHO: _by_node("@news_listening")}),
        p.lines("Reconnects", "Lost connections for notifications.", p.PER_SECOND,
                {_WHO: "sum by (instance, node) (rate(@news_reconnects_total[$__rate_interval]))"}),
        p.bars("Overflows", "Too many names waited, and all were announced instead. In the time range.", p.COUNT,
               {"{{topic}}": "sum by (topic) (increase(@news_overflows_total[$__range]))"}, span=16),
    ]  # fmt: skip


def _database() -> list[p.Panel]:
    return [
        p.lines("Retried transactions", "Steps that ran again, by cause.", p.PER_SECOND,
                {"{{cause}}": "sum by (cause) (rate(@store_retries_total[$__rate_interval]))"}),
        p.lines("Degraded", "1: something fails that all nodes share, such as the database or Replicate.", p.COUNT,
                {f"{{{{cause}}}} {_WHO}": "max by (cause, instance, node) (@degraded)"}),
        p.lines("Store operations by node", "Operations in progress or queued.", p.COUNT,
                {_WHO: _by_node("@store_pending")}),
    ]  # fmt: skip
