"""Metadata from memory, and the operators' own listener."""

import asyncio
import gzip
import sqlite3
import zlib
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway.app import running
from gateway.errors import StoreUnavailable
from gateway.simulator import Fault, Simulator
from gateway.store.sqlite import SQLiteStore
from tests.support.http_calls import Reply, ask, assert_problem, metrics_of
from tests.support.polling import until
from tests.support.samples import create, finished
from tests.support.secret_scanner import SecretScanner
from tests.support.stack import OpenGateway, Stack, stack_config
from tests.support.system_clocks import ShiftedClock
from tests.support.upstream import version_of

READS = [
    ("/v1/models", "models.list"),
    ("/v1/models/acme/painter", "models.get"),
    ("/v1/models/acme/painter/versions", "models.versions.list"),
    ("/v1/models/acme/painter/examples", "models.examples.list"),
    ("/v1/models/acme/painter/readme", "models.readme.get"),
    ("/v1/collections", "collections.list"),
    ("/v1/collections/testing", "collections.get"),
    ("/v1/hardware", "hardware.list"),
    ("/v1/search?query=llama", "search"),
]


@pytest.mark.parametrize(("path", "operation"), READS, ids=[operation for _, operation in READS])
async def test_metadata_is_read_once_and_then_served_from_memory(gateway: Stack, path: str, operation: str):
    """Both teams, again and again: one read upstream, the same body, an `Age`, and an ETag that saves the transfer."""
    first = await ask(gateway, "GET", path)
    assert first.status == 200
    assert first.headers["Cache-Status"] == "replicate-gateway; fwd=miss; stored"
    assert "Age" not in first.headers
    for key in ("alpha", "beta"):
        again = await ask(gateway, "GET", path, key=key)
        assert again.body == first.body
        assert again.headers["Cache-Status"].startswith("replicate-gateway; hit; ttl=")
        assert 0 <= int(again.headers["Age"]) <= 5
        assert again.headers["ETag"] == first.headers["ETag"]
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
        assert "no-cache" in again.headers["Cache-Control"]
    unchanged = await ask(gateway, "GET", path, headers={"If-None-Match": first.headers["ETag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert unchanged.headers["ETag"] == first.headers["ETag"]
    changed = await ask(gateway, "GET", path, headers={"If-None-Match": 'W/"another"'})
    assert changed.status == 200
    assert gateway.upstream.requests.count(operation) == 1
    assert gateway.upstream.requests.count() == 1


async def test_metadata_is_served_while_the_store_cannot_record_versions(
    gateway: Stack, monkeypatch: pytest.MonkeyPatch
):
    """The caller gets what upstream has answered; the version map is filled by a later read."""

    async def refuse(_store: SQLiteStore, _version: str, _model: str) -> None:
        raise StoreUnavailable("The store did not answer in time.")

    with monkeypatch.context() as patched:
        patched.setattr(SQLiteStore, "learn_version", refuse)
        for path in ("/v1/models/acme/painter", "/v1/models/acme/painter/versions"):
            assert (await ask(gateway, "GET", path)).status == 200


async def test_search_is_cached_by_its_query(gateway: Stack):
    """Other words are another search; the same words as JSON are too, as upstream may read them differently."""
    for words, content_type in ((b"llama", "text/plain"), (b"flux", "text/plain"), (b'"llama"', "application/json")):
        for _ in range(2):
            reply = await ask(gateway, "QUERY", "/v1/models", data=words, headers={"Content-Type": content_type})
            assert reply.status == 200
    assert gateway.upstream.requests.count("models.search") == 3


async def test_query_is_sent_upstream_as_spelled(gateway: Stack):
    """Nothing is decoded on the way: an encoded line break stays encoded and makes no header."""
    for method, path in (("GET", "/v1/search"), ("QUERY", "/v1/models")):
        gateway.upstream.requests.clear()
        coded = "query=a%0d%0aX-Evil:%20yes%20%26b=c&x=%C3%A9%ff"
        headers = {"Content-Type": "text/plain"} if method == "QUERY" else {}
        reply = await ask(gateway, method, f"{path}?{coded}", data=b"x" if headers else None, headers=headers)
        assert reply.status == 200
        (seen,) = gateway.upstream.requests
        assert "x-evil" not in seen.headers
        assert "\r\nX-Evil: yes" in seen.query


async def test_fifty_concurrent_reads_cost_one_upstream_read(gateway: Stack):
    """A page full of components that all need a model's schema."""
    gateway.upstream.faults.set(Fault("delay", operation="models.get", seconds=0.2))
    replies = await asyncio.gather(*(ask(gateway, "GET", "/v1/models/acme/painter") for _ in range(50)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert gateway.upstream.requests.count("models.get") == 1


async def test_errors_are_not_cached(gateway: Stack):
    """A model published a moment ago is seen by the next read, and an upstream that recovers is used at once."""
    for _ in range(2):
        assert (await ask(gateway, "GET", "/v1/models/acme/nothing")).status == 404
    assert gateway.upstream.requests.count("models.get") == 2
    gateway.upstream.faults.set(Fault("error", operation="models.get", status=500))
    assert (await ask(gateway, "GET", "/v1/models/acme/painter")).status == 500
    gateway.upstream.faults.clear()
    assert (await ask(gateway, "GET", "/v1/models/acme/painter")).status == 200


async def test_zero_ttl_disables_metadata_caching(open_gateway: OpenGateway):
    """`metadata_ttl_seconds = 0` reads upstream every time, and the response says so."""
    async with open_gateway(cache={"metadata_ttl_seconds": 0}) as stack:
        for _ in range(3):
            reply = await ask(stack, "GET", "/v1/hardware")
            assert reply.headers["Cache-Status"] == "replicate-gateway; fwd=bypass; detail=metadata-ttl-0"
            assert "Age" not in reply.headers
        assert stack.upstream.requests.count("hardware.list") == 3


async def test_cached_metadata_expires(open_gateway: OpenGateway, upstream: Simulator):
    """After its time an entry is read again; until then `Age` says how old it is."""
    clock = ShiftedClock()
    async with open_gateway(clock=clock, cache={"metadata_ttl_seconds": 60}) as stack:
        await ask(stack, "GET", "/v1/hardware")
        clock.shift = 50
        reply = await ask(stack, "GET", "/v1/hardware")
        assert 49 <= int(reply.headers["Age"]) <= 51
        clock.shift = 61
        assert "fwd=miss" in (await ask(stack, "GET", "/v1/hardware")).headers["Cache-Status"]
        assert upstream.requests.count("hardware.list") == 2


async def test_write_invalidates_cached_metadata(gateway: Stack):
    """A caller who changes a model sees the change in the next read."""
    made = {"owner": "acme", "name": "fresh", "visibility": "private", "hardware": "cpu"}
    assert (await ask(gateway, "GET", "/v1/models/acme/painter")).status == 200
    await ask(gateway, "POST", "/v1/models", json=made)
    assert "fwd=miss" in (await ask(gateway, "GET", "/v1/models/acme/painter")).headers["Cache-Status"]


async def test_etag_depends_on_the_base_of_the_links(gateway: Stack):
    """The links of a page differ from base to base, so an ETag from another base does not match."""
    here = await ask(gateway, "GET", "/v1/collections", headers={"Host": "a.test"})
    there = await ask(gateway, "GET", "/v1/collections", headers={"Host": "b.test"})
    assert here.headers["ETag"] != there.headers["ETag"]
    assert gateway.upstream.requests.count("collections.list") == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br, gzip", "gzip;q=0", "identity", ""])
async def test_large_responses_are_compressed_for_clients_that_accept_it(gateway: Stack, coding: str):
    """Lists of models are megabytes of schemas; a client without compression gets them plain."""
    plain = await ask(gateway, "GET", "/v1/models")
    reply = await ask(gateway, "GET", "/v1/models", headers={"Accept-Encoding": coding})
    assert "Accept-Encoding" in reply.headers["Vary"]
    used = reply.headers.get("Content-Encoding")
    if coding in ("identity", ""):
        assert used is None
    body = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[used](reply.body)
    assert body == plain.body
    again = await ask(gateway, "GET", "/v1/models", headers={"Accept-Encoding": coding})
    assert (again.body, again.headers.get("Content-Encoding")) == (reply.body, used)
    small = await ask(gateway, "GET", "/v1/hardware", headers={"Accept-Encoding": "gzip"})
    assert len(small.body) >= 2048 or "Content-Encoding" not in small.headers


async def test_upstream_compression_is_decoded(gateway: Stack):
    """A compressed upstream response arrives readable and is not announced as compressed."""
    gateway.upstream.faults.set(Fault("gzip"))
    reply = await ask(gateway, "GET", "/v1/models/acme/painter")
    assert reply.json["name"] == "painter"
    assert "Content-Encoding" not in reply.headers
    assert (await create(gateway, model="acme/storyteller")).status == 201


# The operators' listener.


async def ops(stack: Stack, path: str, **headers: str) -> Reply:
    return await ask(stack, "GET", stack.ops_url + path, key=None, headers=headers)


async def test_metrics_are_valid_in_both_exposition_formats(gateway: Stack):
    """Every series parses, counters end in _total, and no label holds an id or a URL."""
    made = (await create(gateway, model="acme/storyteller")).json
    await finished(gateway, made["id"])
    await ask(gateway, "GET", "/v1/nothing/" + made["id"])
    await ask(gateway, "GET", "/v1/models")
    reply = await ops(gateway, "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    open_reply = await ops(gateway, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert open_reply.headers["Content-Type"].startswith("application/openmetrics-text")
    assert list(openmetrics(open_reply.text))
    ours = {name for name in families if name.startswith("replicate_gateway_")}
    for name in ("predictions_created", "predictions_finished", "polls", "upstream_requests", "http_requests",
                 "http_request_duration_seconds", "sse_streams", "cache_lookups"):  # fmt: skip
        assert f"replicate_gateway_{name}" in ours
    for family in families.values():
        for sample in family.samples:
            text = " ".join(sample.labels.values())
            assert made["id"] not in text
            assert "://" not in text

    def count(name: str, **labels: str) -> float:
        samples = families[f"replicate_gateway_{name}"].samples
        return sum(s.value for s in samples if s.name.endswith("_total") and labels.items() <= s.labels.items())

    assert count("predictions_created", team="alpha") == 1
    assert count("predictions_finished", team="alpha", status="succeeded") == 1
    assert count("upstream_requests", operation="predictions.create", code="201") == 1
    assert count("http_requests", code="404") == 1


async def test_target_label_has_a_limited_number_of_values(open_gateway: OpenGateway):
    """Model names come from callers; only the first few become series."""
    async with open_gateway(metrics={"top_targets": 2}) as stack:
        for model in ("acme/slow", "acme/storyteller", "acme/painter", "acme/analyze"):
            body = {"version": f"{model}:{version_of(stack.upstream, model)}", "input": {"prompt": "x", "text": "x"}}
            assert (await ask(stack, "POST", "/v1/predictions", json=body)).status == 201
        page = await metrics_of(stack)
        assert 'target="other"' in page
        assert 'target="acme/analyze"' not in page


async def test_health_probes_answer_on_both_listeners_without_a_key(gateway: Stack):
    """An orchestrator may use either."""
    for url in (gateway.origin, gateway.ops_url):
        for path in ("/healthz", "/readyz"):
            reply = await ask(gateway, "GET", url + path, key=None)
            assert reply.status == 200, reply.text
            assert reply.json["status"] in ("ok", "ready")
    assert gateway.upstream.requests.count("account.get") == 1, "however often one probes, upstream is asked rarely"


async def test_listeners_do_not_serve_each_others_routes(gateway: Stack):
    """Metrics are not for callers, and callers' routes are not on the ops listener."""
    for path in ("/metrics", "/v1/metrics", "/dashboard", "/admin/keys"):
        assert_problem(await ask(gateway, "GET", path), 404, origin=None)
    reply = await ask(gateway, "GET", gateway.ops_url + "/v1/account")
    assert reply.status == 404
    assert reply.headers["Content-Type"].startswith("application/problem+json")


async def test_ops_token_is_required_where_it_is_set(
    upstream: Simulator, tmp_path: Path, secret_scanner: SecretScanner
):
    """Metrics need the token, probes do not, and no team's key is accepted."""
    token = "ops-" + "t" * 40
    secret_scanner.add("the operators' token", token)
    config, keys = stack_config(upstream, tmp_path)
    config = config.model_copy(update={"ops": config.ops.with_token(token)})
    async with running(config) as serving:
        stack = Stack(serving, upstream, keys, config, tmp_path / "gateway.db")
        for given in ("", "Bearer", "Bearer wrong", f"Bearer {keys['alpha']}", f"Bearer {token}x", "Bearer \u20ac"):
            reply = await ops(stack, "/metrics", **({"Authorization": given} if given else {}))
            assert reply.status == 401
            assert reply.headers["Content-Type"].startswith("application/problem+json")
        assert (await ops(stack, "/metrics", Authorization=f"Bearer {token}")).status == 200
        assert (await ops(stack, "/healthz")).status == 200
        assert (await ops(stack, "/readyz")).status == 200
        assert (await ops(stack, "/nothing")).status == 401


async def test_readyz_fails_when_the_store_is_unavailable(gateway: Stack):
    """The orchestrator learns that the database cannot be written; what is in memory is still served."""
    made = (await create(gateway)).json
    blocker = sqlite3.connect(gateway.database, isolation_level=None)
    # The last write of a create comes after its answer.
    await until(lambda: blocker.execute("SELECT count(*) FROM versions").fetchone()[0])
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        reply, known, models, refused = await asyncio.gather(
            ask(gateway, "GET", "/readyz", key=None),
            ask(gateway, "GET", f"/v1/predictions/{made['id']}"),
            ask(gateway, "GET", "/v1/models"),
            create(gateway),
        )
        assert reply.status == 503
        assert reply.json["checks"]["store"] != "ok"
        assert (known.status, models.status) == (200, 200)
        assert_problem(refused, 503, origin=None)
        assert int(refused.headers["Retry-After"]) >= 1
        assert gateway.upstream.requests.count("predictions.create") == 1
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    assert (await ask(gateway, "GET", "/readyz", key=None)).status == 200
    assert (await create(gateway)).status == 201


async def test_concurrent_probes_ask_upstream_once(gateway: Stack):
    """Many probes at once are no load."""
    async with aiohttp.ClientSession() as session:

        async def probe() -> int:
            async with session.get(f"{gateway.origin}/readyz") as response:
                return response.status

        assert set(await asyncio.gather(*(probe() for _ in range(50)))) == {200}
    assert gateway.upstream.requests.count("account.get") == 1
