"""Metrics: exactly those of the catalogue, bounded, present from the start, and documented."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.domain.bypass import BypassReason
from gateway.domain.records import Source, Status
from gateway.metrics import Metrics, MetricsSettings, catalogue, loop_lag, page
from gateway.metrics.catalogue import NAMESPACE, Kind
from gateway.metrics.registry import most_samples
from gateway.runtime.live import LiveSettings

ROOT = Path(__file__).parents[2]
TEAMS = ("alpha", "beta")


def made(*, routes: Sequence[str] = (), **more: Any) -> Metrics:
    return Metrics(LiveSettings(MetricsSettings(**{"teams": TEAMS, "top_targets": 50} | more)), routes=routes)


async def families_of(metrics: Metrics) -> dict[str, Metric]:
    """Scrape, and return the metrics of the gateway."""
    body, _ = await metrics.scrape("")
    found = text_string_to_metric_families(body.decode())
    return {family.name: family for family in found if family.name.startswith(NAMESPACE)}


async def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return a sample by its name without the prefix."""
    samples = [sample for family in (await families_of(metrics)).values() for sample in family.samples]
    (found,) = [each.value for each in samples if each.name == f"{NAMESPACE}_{name}" and each.labels == labels]
    return found


def test_the_metrics_page_is_up_to_date():
    """To update it: `python -m gateway.metrics > docs/metrics.md`."""
    assert (ROOT / "docs/metrics.md").read_text() == page.render()


async def test_the_catalogue_matches_the_exported_metrics():
    """With help text and type."""
    exported = await families_of(made())
    assert len(exported) == sum(1 for _ in catalogue.families())
    for family in catalogue.families():
        name = f"{NAMESPACE}_{family.name}" + ("_info" if family.kind is Kind.INFO else "")
        found = exported[name]
        assert found.documentation == family.help_text
        assert found.type == ("gauge" if family.kind is Kind.INFO else family.kind.value)


async def test_public_metric_names_exist():
    """Dashboards, alerts and operators depend on them."""
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


async def test_series_of_known_labels_exist_from_the_start():
    """A series that starts at 1 would show no rate for the first event."""
    metrics = made(targets=("acme/painter",))
    assert await value(metrics, "predictions_created_total", team="beta", target="acme/painter", source="hit") == 0
    assert await value(metrics, "predictions_finished_total", team="alpha", status="failed") == 0
    assert await value(metrics, "saved_usd_total", team="alpha", reason="joined") == 0
    assert await value(metrics, "cache_bypasses_total", reason="no-seed") == 0
    assert await value(metrics, "upstream_token_refused_total") == 0
    metrics.prediction_created("alpha", "acme/new", Source.MISS)
    # The first run of a new target also creates its series for the other outcomes.
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


async def test_cached_series_are_the_exported_ones():
    """References kept for speed count in the same series."""
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
async def test_the_number_of_series_is_bounded(teams: int, top_targets: int):
    """Fifty teams, hundreds of targets, and names made up by callers stay below the documented limit."""
    names = [f"team-{number}" for number in range(teams)]
    metrics = made(teams=names, top_targets=top_targets, routes=[f"route.{number}" for number in range(60)])
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
    # No count was lost.
    assert sum(each.value for each in created) == 600 * (teams + 1) * len(Source)
    assert await value(metrics, "labels_dropped_total", label="target") > 0


async def test_targets_in_the_config_have_their_own_label():
    """Unusual targets requested first do not displace them."""
    metrics = made(top_targets=2, targets=("acme/painter", "acme/storyteller"))
    for target in ("odd/one", "odd/two", "acme/painter"):
        metrics.prediction_created("alpha", target, Source.MISS)
    count = "predictions_created_total"
    assert await value(metrics, count, team="alpha", target="other", source="miss") == 2
    assert await value(metrics, count, team="alpha", target="acme/painter", source="miss") == 1


async def test_several_readers_of_a_metric_add_up():
    """Several parts have waiting requests; one metric shows them all."""
    metrics = made()
    metrics.read_on_scrape("waiters", lambda: {"sync": 2})
    metrics.read_on_scrape("waiters", lambda: {"sync": 1, "limit": 3})
    metrics.read_on_scrape("runs_active", lambda: {"alpha": 4, "gone": 1})
    assert await value(metrics, "waiters", kind="sync") == 3
    assert await value(metrics, "waiters", kind="limit") == 3
    assert await value(metrics, "waiters", kind="call") == 0
    assert await value(metrics, "runs_active", team="alpha") == 4
    assert await value(metrics, "runs_active", team="beta") == 0
    assert await value(metrics, "runs_active", team="other") == 1


async def test_a_blocked_event_loop_is_measured():
    """The lag is recorded after the loop was blocked."""
    seen: asyncio.Queue[float] = asyncio.Queue()
    sampler = asyncio.create_task(loop_lag.sample(seen.put_nowait))
    await asyncio.sleep(0)
    # Really blocks the loop: that is what is measured.
    time.sleep(loop_lag.EVERY_SECONDS + 0.1)
    assert await seen.get() >= 0.1
    sampler.cancel()
    await asyncio.gather(sampler, return_exceptions=True)


async def test_series_of_teams_added_by_a_reload_exist_at_once():
    """Existing series continue, and the series of a removed limit is removed."""
    settings = LiveSettings(MetricsSettings(teams=["red"], top_targets=0, concurrent_predictions={"red": 5}))
    metrics = Metrics(settings)
    assert 'concurrency_limit{team="red"} 5.0' in (await metrics.scrape(""))[0].decode()
    metrics.spent("red", 1_000_000)
    metrics.spent("blue", 1_000_000)
    unlimited = {"red": None, "blue": None}
    settings.replace(
        MetricsSettings(teams=["blue"], top_targets=1, targets=["acme/x"], concurrent_predictions=unlimited)
    )
    metrics.spent("blue", 2_000_000)
    shown = (await metrics.scrape(""))[0].decode()
    for team, dollars in (("red", 1.0), ("other", 1.0), ("blue", 2.0)):
        assert f'spend_usd_total{{team="{team}"}} {dollars}' in shown
    assert 'predictions_finished_total{status="succeeded",team="blue"} 0.0' in shown
    assert 'target="acme/x"' in shown
    assert "concurrency_limit{" not in shown
