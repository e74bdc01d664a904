"""Readiness: what this process alone cannot do makes it 503, what all share makes it degraded."""

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.access_log import create_story
from tests.support.http_calls import ask, assert_problem, metrics_of
from tests.support.polling import attempts
from tests.support.samples import create
from tests.support.stack import OpenGateway, Stack

LOST = "was deleted while the gateway runs"


async def finished_create(gateway: Stack) -> dict[str, Any]:
    """Create a prediction and wait until nothing more is recorded of it."""
    made: dict[str, Any] = (await create_story(gateway, wait=True)).json
    async for _ in attempts():
        metrics = await metrics_of(gateway)
        if "replicate_gateway_runs_followed 0.0" in metrics and "replicate_gateway_store_pending 0.0" in metrics:
            break
    assert (await ask(gateway, "GET", "/readyz", key=None)).status == 200
    return made


async def test_a_database_that_is_deleted_at_runtime_stops_creates_and_readiness(gateway: Stack):
    """Nothing is acknowledged that would be gone with the process; put back, everything goes on."""
    made = await finished_create(gateway)
    aside = gateway.database.with_name("aside")
    gateway.database.rename(aside)
    ready = await ask(gateway, "GET", "/readyz", key=None)
    assert (ready.status, ready.json["status"]) == (503, "not ready")
    assert LOST in ready.json["checks"]["store"]
    assert_problem(await create(gateway), 503, origin=None)
    assert gateway.upstream.requests.count("predictions.create") == 1
    assert (await ask(gateway, "GET", f"/v1/predictions/{made['id']}")).status == 200
    metrics = await metrics_of(gateway)
    assert "replicate_gateway_ready 0.0" in metrics
    assert 'replicate_gateway_store_failures_total{kind="lost",lane="write"}' in metrics
    assert not gateway.database.exists()
    aside.rename(gateway.database)
    assert (await ask(gateway, "GET", "/readyz", key=None)).status == 200
    assert (await create(gateway)).status == 201


async def test_a_database_that_is_replaced_at_runtime_is_not_served_from(open_gateway: OpenGateway):
    """A backup that is copied over the file in use."""
    # At its end it tries to write for as long as this.
    async with open_gateway(server={"shutdown_grace_seconds": 1}) as gateway:
        await finished_create(gateway)
        copy = gateway.database.with_name("copy")
        copy.write_bytes(gateway.database.read_bytes())
        copy.rename(gateway.database)
        ready = await ask(gateway, "GET", "/readyz", key=None)
        assert (ready.status, "was replaced while" in ready.json["checks"]["store"]) == (503, True)
        assert_problem(await create(gateway), 503, origin=None)


async def test_an_upstream_that_is_away_degrades_and_does_not_fail_readiness(open_gateway: OpenGateway):
    """Taking every process out of the load balancer would stop the service."""
    async with open_gateway(base_url="http://127.0.0.1:9/v1") as stack:
        ready = await ask(stack, "GET", "/readyz", key=None)
        assert (ready.status, ready.json["status"], ready.json["checks"]["store"]) == (200, "degraded", "ok")
        assert ready.json["checks"]["upstream"] != "ok"
        metrics = await metrics_of(stack)
        assert 'replicate_gateway_degraded{cause="upstream"} 1.0' in metrics
        assert "replicate_gateway_ready 1.0" in metrics


async def test_the_creation_of_a_store_is_logged(
    open_gateway: OpenGateway, folder: Path, caplog: pytest.LogCaptureFixture
):
    """Expected once; at any other start the path is wrong."""
    database = folder / "new.db"
    with caplog.at_level(logging.INFO):
        async with open_gateway(store={"url": f"sqlite:///{database}"}):
            assert [record.message for record in caplog.records].count("created a new store") == 1
        assert database.exists()
