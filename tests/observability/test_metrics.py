"""What is counted: the names of the catalogue and no others, in bounds, from the start, and told in the docs."""

import asyncio
import time
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.domain.bypass import BypassReason
from gateway.domain.records import Source, Status
from gateway.metrics import Metrics, catalogue, loop_lag, page
from gateway.metrics.catalogue import NAMESPACE, Kind
from gateway.metrics.registry import most_samples

ROOT = Path(__file__).parents[2]
TEAMS = ("alpha", "beta")


def made(**more: object) -> Metrics:
    return Metrics(teams=TEAMS, **{"top_targets": 50} | more)


async def families_of(metrics: Metrics) -> dict[str, Metric]:
    """Scrape, and read what is the gateway's own."""
    body, _ = await metrics.scrape("")
    found = text_string_to_metric_families(body.decode())
    return {family.name: family for family in found if family.name.startswith(NAMESPACE)}


async def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Read one sample by its whole name, without the prefix."""
    samples = [sample for family in (await families_of(metrics)).values() for sample in family.samples]
    (found,) = [each.value for each in samples if each.name == f"{NAMESPACE}_{name}" and each.labels == labels]
    return found


def test_documented_metrics_match_the_code():
    """To update the page: `python -m gateway.metrics > docs/metrics.md`."""
    assert (ROOT / "docs/metrics.md").read_text() == page.render()


async def test_catalogue_lists_every_exported_metric():
    """Neither more nor fewer, each with its help text and type."""
    exported = await families_of(made())
    assert len(exported) == sum(1 for _ in catalogue.families())
    for family in catalogue.families():
        name = f"{NAMESPACE}_{family.name}" + ("_info" if family.kind is Kind.INFO else "")
        found = exported[name]
        assert found.documentation == family.words
        assert found.type == ("gauge" if family.kind is Kind.INFO else family.kind.value)


async def test_public_metric_names_exist():
    """Dashboards, alerts and users rely on these."""
    exported = {f"{sample}": family.labels for family in catalogue.families() for sample in [family.sample]}
    contracts = {
        "predictions_created_total": {"team", "target", "source"},
        "predictions_finished_total": {"team", "status"},
        "polls_total": {"served_by"},
        "spend_usd_total": {"team"},
        "saved_usd_total": {"team", "reason"},
        "budget_limit_usd": {"team", "window"},
        "budget_spent_usd": {"team", "window"},
        "budget_reserved_usd": {"team", "window"},
        "quota_refusals_total": {"team", "reason"},
        "cache_lookups_total": {"tier", "result"},
        "upstream_requests_total": {"operation", "code"},
        "sse_streams": {"side"},
        "http_request_duration_seconds": {"route"},
    }
    for name, labels in contracts.items():
        assert {label.name for label in exported[f"{NAMESPACE}_{name}"]} == labels


async def test_counters_exist_from_the_start():
    """The first event is a step from 0 to 1: a series that began with 1 would show no rate."""
    metrics = made(targets=("acme/painter",))
    assert await value(metrics, "predictions_created_total", team="beta", target="acme/painter", source="hit") == 0
    assert await value(metrics, "predictions_finished_total", team="alpha", status="failed") == 0
    assert await value(metrics, "saved_usd_total", team="alpha", reason="joined") == 0
    assert await value(metrics, "cache_bypasses_total", reason="no-seed") == 0
    assert await value(metrics, "upstream_token_refused_total") == 0
    metrics.prediction_created("alpha", "acme/new", Source.MISS)
    # With the first run of a target that nobody had named, what may become of the next is there.
    assert await value(metrics, "predictions_created_total", team="alpha", target="acme/new", source="hit") == 0


async def test_lookups_add_up():
    """Lookups are hits, joined, misses and bypasses; creates are misses and bypasses."""
    metrics = made()
    for source in Source:
        metrics.prediction_created("alpha", "acme/painter", source)
    metrics.prediction_created("beta", "acme/painter", Source.HIT)
    metrics.cache_bypassed(BypassReason.NO_SEED)
    samples = (await families_of(metrics))[f"{NAMESPACE}_cache_lookups"].samples
    looked = {each.labels["result"]: each.value for each in samples if each.labels["tier"] == "predictions"}
    assert looked == {"hit": 2, "joined": 1, "miss": 1, "bypass": 1}


async def test_prepared_series_equal_all_others():
    """Series that are kept prepared for speed count like all others."""
    metrics = made(routes=("predictions.get",))
    for _ in range(3):
        metrics.began()
        metrics.answered("predictions.get", "GET", 200, 0.001)
    metrics.began()
    assert (
        await value(metrics, "http_requests_total", route="predictions.get", method="GET", code="200"),
        await value(metrics, "http_request_duration_seconds_count", route="predictions.get"),
        await value(metrics, "http_requests_in_flight"),
    ) == (3, 3, 1)


@pytest.mark.parametrize(("teams", "top_targets"), [(50, 200), (3, 0), (1, 50)])
async def test_number_of_series_is_limited(teams: int, top_targets: int):
    """Fifty teams, hundreds of targets, names that callers invent: the number stays under the documented limit."""
    names = [f"team-{number}" for number in range(teams)]
    metrics = Metrics(teams=names, top_targets=top_targets, routes=[f"route.{number}" for number in range(60)])
    for number in range(600):
        junk, target = f"junk-{number}" * (number % 30), f"acme/model-{number}"
        for team in (*names, junk):
            for source in Source:
                metrics.prediction_created(team, target, source)
            metrics.prediction_finished(team, Status.SUCCEEDED)
            metrics.budget(team, junk, limit=1, spent=1, reserved=1)
        metrics.run_ended(target, 1.0, 2.0)
        metrics.answered(junk, junk, 100 + number, 0.1)
        metrics.upstream_answered(junk, junk, 0.1)
        metrics.refused(junk)
        metrics.uploaded(junk)
    exported = await families_of(metrics)
    count = sum(len(family.samples) for family in exported.values())
    assert count <= most_samples(teams, top_targets)
    created = exported[f"{NAMESPACE}_predictions_created"].samples
    assert {each.labels["team"] for each in created} <= {*names, "other"}
    assert len({each.labels["target"] for each in created}) <= top_targets + 2
    # Nothing was lost by that.
    assert sum(each.value for each in created) == 600 * (teams + 1) * len(Source)
    assert await value(metrics, "labels_dropped_total", label="target") > 0


async def test_configured_targets_have_their_own_label_first():
    """Someone who asks first for an odd target does not take the place of one that the operator named."""
    metrics = made(top_targets=2, targets=("acme/painter", "acme/storyteller"))
    for target in ("odd/one", "odd/two", "acme/painter"):
        metrics.prediction_created("alpha", target, Source.MISS)
    count = "predictions_created_total"
    assert await value(metrics, count, team="alpha", target="other", source="miss") == 2
    assert await value(metrics, count, team="alpha", target="acme/painter", source="miss") == 1


async def test_gauges_of_several_parts_are_summed():
    """Several parts keep callers waiting; one metric shows them all."""
    metrics = made()
    metrics.watch("waiters", lambda: {"sync": 2})
    metrics.watch("waiters", lambda: {"sync": 1, "limit": 3})
    metrics.watch("runs_active", lambda: {"alpha": 4, "gone": 1})
    assert await value(metrics, "waiters", kind="sync") == 3
    assert await value(metrics, "waiters", kind="limit") == 3
    assert await value(metrics, "waiters", kind="call") == 0
    assert await value(metrics, "runs_active", team="alpha") == 4
    assert await value(metrics, "runs_active", team="beta") == 0
    assert await value(metrics, "runs_active", team="other") == 1


async def test_blocked_event_loop_is_measured():
    """The lag is recorded once the loop runs again."""
    seen: asyncio.Queue[float] = asyncio.Queue()
    sampler = asyncio.create_task(loop_lag.sample(seen.put_nowait))
    await asyncio.sleep(0)
    # Really blocks the loop: that is what is measured.
    time.sleep(loop_lag.EVERY_SECONDS + 0.1)
    assert await seen.get() >= 0.1
    sampler.cancel()
    await asyncio.gather(sampler, return_exceptions=True)


async def test_teams_added_by_a_reload_have_series_from_the_start():
    """Others' series go on, and the series of a removed limit goes away."""
    metrics = Metrics(teams=["red"], top_targets=0)
    metrics.concurrency_limited("red", 5)
    metrics.spent("red", 1_000_000)
    metrics.spent("blue", 1_000_000)
    metrics.reconfigure(teams=["blue"], top_targets=1, targets=["acme/x"])
    metrics.spent("blue", 2_000_000)
    metrics.concurrency_limited("red", None)
    metrics.concurrency_limited("blue", None)
    shown = (await metrics.scrape(""))[0].decode()
    for team, dollars in (("red", 1.0), ("other", 1.0), ("blue", 2.0)):
        assert f'spend_usd_total{{team="{team}"}} {dollars}' in shown
    assert 'predictions_finished_total{status="succeeded",team="blue"} 0.0' in shown
    assert 'target="acme/x"' in shown
    assert "concurrency_limit{" not in shown
