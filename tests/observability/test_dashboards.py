"""Dashboards: generated from code, valid for Grafana, and with correct values in a real Prometheus.

A real Prometheus scrapes a gateway while three teams use it by a script; then every panel of every dashboard is asked.
"""

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from gateway.metrics import catalogue
from gateway.simulator import Simulator
from grafana import build
from tests.support.http_calls import ask
from tests.support.metric_names import STANDARD_LABELS, exported, labels_in
from tests.support.polling import attempts
from tests.support.prometheus import DASHBOARDS, RULES, Labels, Prometheus, Query, queries, start_prometheus
from tests.support.samples import FORM, content, form
from tests.support.simulator_models import add_patient
from tests.support.stack import TEAM_SCOPES, Stack, start_gateway
from tests.support.upstream import creates, version_of

PRICES = {"acme/painter": 0.01, "acme/patient": 0.005, "acme/storyteller": 0.002}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_CALLS = {"by", "on", "or", "and", "sum", "max", "rate", "increase", "topk", "time", "vector", "histogram_quantile"}


def loaded(name: str) -> dict[str, Any]:
    return json.loads(DASHBOARDS[name].read_text())


def test_the_json_files_are_up_to_date():
    """To update them: `python -m grafana.build`."""
    made = {name: build.to_json(dashboard) for name, dashboard in build.dashboards().items()}
    assert made == {name: path.read_text() for name, path in DASHBOARDS.items()}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_own_types_know_every_field(name: str):
    """A round trip through Grafana's published types loses nothing, so every field is known.

    An annotation has fields of its data source too, which those types leave out.
    """
    register_default_plugins()
    expected = loaded(name)
    for annotation in expected["annotations"]["list"]:
        assert annotation.pop("useValueForTime") is True
        assert {annotation.pop(field) for field in ("step", "titleFormat", "textFormat", "tagKeys")}
    again = json.dumps(Dashboard.from_json(loaded(name)), cls=JSONEncoder, sort_keys=True)
    assert json.loads(again) == expected


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_title_description_unit_and_place(name: str):
    """Panels do not overlap, and links lead to the other dashboards."""
    dashboard = loaded(name)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == SOURCE
        assert all(target["datasource"] == SOURCE for target in panel["targets"])
        place = panel["gridPos"]
        cells = {(place["x"] + across, place["y"] + down) for across in range(place["w"]) for down in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    (link,) = dashboard["links"]
    assert (link["type"], link["tags"], link["includeVars"]) == ("dashboards", dashboard["tags"], True)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_are_declared_and_used(name: str):
    """Every selection changes a panel."""
    dashboard = loaded(name)
    declared = {each["name"]: each for each in dashboard["templating"]["list"]}
    text = " ".join(query.expr for query in queries() if query.dashboard == name)
    assert set(re.findall(r"\$(\w+)", text)) - {"__rate_interval", "__range"} == declared.keys() - {"datasource"}
    assert declared.pop("datasource")["query"] == "prometheus"
    assert all(each["datasource"] == SOURCE for each in declared.values())


def test_every_query_is_limited_to_the_chosen_gateways():
    """Two installations in one Prometheus are not added up."""
    for query in queries():
        metrics = re.findall(r"\b(?:replicate_gateway|process)_\w+(?:\{([^}]*)\})?", query.expr)
        for selector in metrics:
            assert selector.startswith('job=~"$job", instance=~"$instance", node=~"$node"'), str(query)


def test_starts_and_reloads_are_marked():
    """On every dashboard."""
    for name in DASHBOARDS:
        marked = loaded(name)["annotations"]["list"]
        assert [each["name"] for each in marked] == ["Start", "Reload"]
        assert all(each["datasource"] == SOURCE for each in marked)


def test_queries_use_exported_metrics_only():
    """A misspelled name or label would show an empty panel."""
    known = exported()
    for query in queries():
        used = set(re.findall(r"\b(?:replicate_gateway|process)_\w+", query.expr))
        assert used, str(query)
        assert used <= known.keys(), str(query)
        allowed = set().union(*(known[name] for name in used)) | STANDARD_LABELS
        assert labels_in(query.expr) <= allowed, str(query)


def test_budgets_turn_yellow_and_red():
    """At 80 and at 100 percent, like the alerts."""
    (panel,) = [panel for panel in loaded("teams")["panels"] if panel["title"] == "Budget used"]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step.get("value") for step in steps] == [None, 0.8, 1]


# With a real Prometheus.


@pytest.fixture
async def busy_gateway(upstream: Simulator, tmp_path: Path) -> AsyncIterator[Stack]:
    """A gateway with three teams, prices and budgets."""
    prices = {"models": [{"model": model, "usd_per_run": usd} for model, usd in PRICES.items()]}
    rules = [{"model": "acme/patient", "mode": "always"}]
    teams = {"alpha": {"budget_usd_per_day": 10.0}, "beta": {"concurrent_predictions": 20}}
    teams |= {"gamma": {"scopes": TEAM_SCOPES}}
    async with start_gateway(upstream, tmp_path, teams=teams, prices=prices, cache={"rules": rules}) as stack:
        yield stack


class Script:
    """The requests of the three teams, and the expected values."""

    def __init__(self, stack: Stack) -> None:
        self._house = stack
        self._go_on = add_patient(stack.upstream, "acme/patient")
        self.polls = 0

    async def _create(self, team: str, model: str, **given: Any) -> dict[str, Any]:
        body = {"version": f"{model}:{version_of(self._house.upstream, model)}", "input": given}
        reply = await ask(self._house, "POST", "/v1/predictions", key=team, json=body)
        assert reply.status == 201, reply.text
        return reply.json

    async def _look(self, team: str, prediction: dict[str, Any]) -> dict[str, Any]:
        self.polls += 1
        return (await ask(self._house, "GET", f"/v1/predictions/{prediction['id']}", key=team)).json

    async def _end(self, team: str, prediction: dict[str, Any]) -> None:
        async for _ in attempts():
            if (await self._look(team, prediction))["status"] not in ("starting", "processing"):
                break

    async def play(self) -> None:
        """Send all requests."""
        first = await self._create("alpha", "acme/painter", prompt="a lighthouse", seed=1)
        await self._end("alpha", first)
        for _ in range(4):
            await self._create("alpha", "acme/painter", prompt="a lighthouse", seed=1)
        for _ in range(10):
            await self._look("alpha", first)
        crowd = [await self._create("beta", "acme/patient", prompt="wait for me") for _ in range(6)]
        reply = await ask(self._house, "POST", f"/v1/predictions/{crowd[0]['id']}/cancel", key="beta")
        assert reply.json["status"] == "canceled"
        self._go_on.set()
        for prediction in crowd[1:]:
            await self._end("beta", prediction)
        for _ in range(3):
            reported = await self._create("gamma", "acme/storyteller", prompt="Once")
            # Streams are read to the end, so that their metrics are complete.
            stream = await ask(self._house, "GET", reported["urls"]["stream"], key=None)
            assert "event: done" in stream.text
            await self._end("gamma", reported)
        for _ in range(2):
            headers = {"Content-Type": FORM}
            sent = form(content("a.txt", b"the same bytes"))
            reply = await ask(self._house, "POST", "/v1/files", key="alpha", data=sent, headers=headers)
            assert reply.status == 201
            assert (await ask(self._house, "GET", "/v1/nothing")).status == 404
            assert (await ask(self._house, "GET", "/v1/models/acme/painter")).status == 200


def labelled(**labels: str) -> Labels:
    return frozenset(labels.items())


def by_panel(dashboard: str, panel: str) -> Query:
    """Return the first query of a panel."""
    return next(query for query in queries() if (query.dashboard, query.panel) == (dashboard, panel))


async def test_every_panel_shows_the_expected_values(busy_gateway: Stack, tmp_path: Path):
    """Three teams and a known sequence of predictions, hits, joins, bypasses, polls and files."""
    stack, script = busy_gateway, Script(busy_gateway)
    async with start_prometheus(stack.ops_url, tmp_path) as prometheus:
        await prometheus.until("sum(replicate_gateway_polls_total)", 0)
        await script.play()
        await prometheus.until("sum(replicate_gateway_predictions_finished_total)", 14)
        at = await _scraped_twice(prometheus, script.polls)
        looks = stack.upstream.requests.count("predictions.get")

        async def shown(dashboard: str, panel: str) -> dict[Labels, float]:
            found = await prometheus.query(by_panel(dashboard, panel).asked(), at)
            return {labels: value for labels, value in found.items() if value}

        async def number(dashboard: str, panel: str) -> float:
            (value,) = (await prometheus.query(by_panel(dashboard, panel).asked(), at)).values()
            return value

        assert await number("overview", "Predictions") == 14
        assert await number("overview", "Shared") == pytest.approx(9 / 14)
        assert await number("overview", "Polls per upstream poll") == pytest.approx(script.polls / looks)
        assert await number("cache", "Hits") == 4
        assert await number("cache", "Joined") == 5
        assert await number("cache", "Misses") == 2
        assert await number("cache", "Bypasses") == 3
        assert await number("cache", "Hit ratio") == pytest.approx(9 / 11)
        assert await shown("cache", "Bypasses by reason") == {labelled(reason="no-seed"): 3}
        assert await shown("cache", "Uploads") == {labelled(result="sent"): 1, labelled(result="known"): 1}
        assert await number("upstream", "Polls") == looks
        assert await number("upstream", "Creates") == creates(stack.upstream) == 5
        assert await shown("teams", "Predictions by team") == {
            labelled(team="alpha", source="miss"): 1,
            labelled(team="alpha", source="hit"): 4,
            labelled(team="beta", source="miss"): 1,
            labelled(team="beta", source="joined"): 5,
            labelled(team="gamma", source="bypass"): 3,
        }
        assert await shown("teams", "Completed by team") == {
            labelled(team="alpha", status="succeeded"): 5,
            labelled(team="beta", status="succeeded"): 5,
            labelled(team="beta", status="canceled"): 1,
            labelled(team="gamma", status="succeeded"): 3,
        }
        assert await shown("teams", "Busiest targets") == {
            labelled(target="acme/painter"): 5,
            labelled(target="acme/patient"): 6,
            labelled(target="acme/storyteller"): 3,
        }
        await _money_is_right(stack, prometheus, at)
        await _all_panels_have_data(prometheus, at)
        await _rules_are_healthy(prometheus)


async def _scraped_twice(prometheus: Prometheus, polls: int) -> float:
    """Wait for two scrapes with nothing new in them; return the time of the last.

    Rates need two points. `increase` is exact at the very time of a scrape for what began with 0.
    """
    seen = 'replicate_gateway_polls_total{served_by="gateway"}'
    await prometheus.until(seen, polls)
    await prometheus.until("sum(replicate_gateway_runs_followed)", 0)
    first = last = await prometheus.number(f"timestamp({seen})")
    async for _ in attempts():
        if last is not None and last != first:
            return last
        last = await prometheus.number(f"timestamp({seen})")
    raise AssertionError


async def _money_is_right(stack: Stack, prometheus: Prometheus, at: float) -> None:
    """Spend and savings match the prices and the ledger."""
    spent = _by_team(await prometheus.query(by_panel("teams", "Spend by team").asked(), at))
    saved = _by_team(await prometheus.query(by_panel("teams", "Savings by team").asked(), at))
    # The first caller canceled, and the run continued for the five that had joined: they pay nothing.
    assert spent == {"alpha": 10_000, "beta": 5_000, "gamma": 6_000}
    assert saved == {"alpha": 4 * 10_000, "beta": 5 * 5_000}
    for team in ("alpha", "beta", "gamma"):
        ledger = (await ask(stack, "GET", "/gateway/usage", key=team)).json["total"]
        assert (ledger["spend_microusd"], ledger["saved_microusd"]) == (spent[team], saved.get(team, 0))
    used = await prometheus.query(by_panel("teams", "Budget used").asked(), at)
    assert {labels: round(value, 9) for labels, value in used.items()} == {labelled(team="alpha", window="day"): 0.001}


def _by_team(dollars: Mapping[Labels, float]) -> dict[str, int]:
    """Sum by team, in micro-dollars, without teams that have none."""
    total: Counter[str] = Counter()
    for labels, value in dollars.items():
        total[dict(labels)["team"]] += round(value * 1_000_000)
    return dict(+total)


async def _all_panels_have_data(prometheus: Prometheus, at: float) -> None:
    optional = [family.sample for family in catalogue.families() if not family.is_prepared]
    results = await asyncio.gather(*(prometheus.query(name, at) for name in optional))
    absent = [name for name, found in zip(optional, results, strict=True) if not found]
    asked = list(queries())
    empty = []
    for query, found in zip(
        asked, await asyncio.gather(*(prometheus.query(query.asked(), at) for query in asked)), strict=True
    ):
        if not found and not any(name in query.expr for name in absent):
            empty.append(str(query))
        # A histogram without observations has no quantile.
        assert all(not math.isinf(value) for value in found.values()), str(query)
    # Nothing was reloaded.
    assert empty == [f"{name}: annotation Reload" for name in DASHBOARDS]
    (start,) = (await prometheus.query(by_panel("overview", "annotation Start").asked(), at)).values()
    assert start == 1000 * await prometheus.number("process_start_time_seconds", at)


async def _rules_are_healthy(prometheus: Prometheus) -> None:
    """The rules are evaluated with real metrics. Nothing is wrong, so no alert fires."""
    groups = (await prometheus.ask("rules"))["groups"]
    assert {group["file"] for group in groups} == {str(RULES)}
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, rules
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
