"""No secret leaks from any route under any fault (docs/architecture.md, Invariants 1).

The scan is in `tests/support/secret_scanner.py` and wraps every test of this folder. Here: all routes under all faults,
upstreams that send the token back, and a check that the scan finds a leak.
"""

import asyncio
import logging

import pytest

from gateway.http.routes import OWN, PUBLIC
from gateway.simulator import Fault, Simulator
from tests.support.http_calls import PAGE, ask, metrics_of, raw_request, send_raw
from tests.support.raw_server import raw_server
from tests.support.samples import create, request_for, upload
from tests.support.secret_scanner import LogScanner, SecretScanner
from tests.support.stack import OpenGateway, Stack

TROUBLES = [
    None,
    Fault("html_error"),
    Fault("html_error_after"),
    Fault("error"),
    Fault("throttle", retry_after=60),
    Fault("insufficient_credit", operation="*"),
    Fault("token_revoked"),
    Fault("redirect"),
    Fault("drop_before"),
    Fault("drop_after"),
    Fault("malformed_json"),
    Fault("gzip"),
    Fault("shape", value="database"),
]


@pytest.mark.parametrize("fault", TROUBLES, ids=lambda fault: fault.name if fault else "none")
async def test_no_secret_leaks_on_any_route_under_any_fault(
    open_gateway: OpenGateway, upstream: Simulator, fault: Fault | None
):
    """All routes, with every kind of key, while upstream misbehaves: no response, log, metric or file has a secret."""
    hasty = {"adopt_wait_seconds": 0.2}
    teams = {"alpha": {"max_wait_seconds": 0}, "operator": {"max_wait_seconds": 0}}
    async with open_gateway(cache={"metadata_ttl_seconds": 0}, upstream=hasty, teams=teams) as stack:
        prediction = (await create(stack, model="acme/storyteller")).json["id"]
        file = (await ask(stack, "POST", "/v1/files", **upload())).json["id"]
        if fault is not None:
            upstream.faults.set(fault)

        async def knock(number: int) -> None:
            route = (*PUBLIC, *OWN)[number]
            method, path, body = request_for(route, upstream, id=prediction, file_id=file)
            for key in ("alpha", "operator"):
                reply = await ask(stack, method, path, key=key, **body)
                assert reply.status != 500 or fault is not None

        await asyncio.gather(*(knock(number) for number in range(len(PUBLIC) + len(OWN))))


@pytest.mark.parametrize("spelling", ["_", r"\u005f", "%5f"], ids=["plain", "escaped", "percent-encoded"])
async def test_token_echoed_by_upstream_is_not_passed_on(open_gateway: OpenGateway, upstream: Simulator, spelling: str):
    """A debugging proxy that echoes request headers reveals nothing, in whatever spelling JSON has for it."""
    spelled = upstream.token.replace("_", spelling)

    async def echo(head: bytes, writer: asyncio.StreamWriter) -> None:
        assert upstream.token.encode() in head
        body = (
            b'{"id":"' + b"a" * 26 + b'","status":"starting","results":[],"next":null,"echo":"%b"}' % spelled.encode()
        )
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body)

    hasty = {"adopt_wait_seconds": 0.2}
    async with raw_server(echo) as proxy, open_gateway(base_url=proxy.url + "/v1", upstream=hasty) as stack:
        requests = (
            ("GET", "/v1/models", "alpha", None),
            ("GET", "/v1/account", "operator", None),
            ("GET", "/v1/predictions", "operator", None),
            ("GET", "/v1/predictions/" + "a" * 26, "operator", None),
            ("PATCH", "/v1/models/acme/painter", "alpha", {"description": "x"}),
            ("POST", "/v1/predictions", "alpha", {"version": "acme/x", "input": {}}),
        )
        for reply in await asyncio.gather(
            *(ask(stack, m, path, key=key, json=body) for m, path, key, body in requests)
        ):
            assert reply.status in (502, 504), reply.text


async def test_server_header_names_only_the_product(gateway: Stack):
    """Neither language nor version, on any kind of response."""
    for data in (
        raw_request("GET", "/v1/account", key=gateway.keys["alpha"]),
        raw_request("GET", "/nothing"),
        b"garbage\r\n\r\n",
        raw_request("OPTIONS", "/v1/account"),
    ):
        reply = await send_raw(gateway, data)
        assert reply.headers["Server"] == "replicate-gateway"
        whole = " ".join(f"{name}: {value}" for name, value in reply.headers.items()) + reply.text
        assert "aiohttp" not in whole
        assert "Python" not in whole


async def test_unexpected_upstream_headers_are_dropped(open_gateway: OpenGateway):
    """Upstream's cookies, server names and proxy headers are not passed to callers."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: s=1\r\nServer: cloudflare\r\nVia: x\r\n"
        b"CF-Ray: y\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\nStrict-Transport-Security: z\r\n"
        b"X-Request-Id: theirs\r\nContent-Length: 2\r\n\r\n{}"
    )
    async with raw_server(head) as source, open_gateway(base_url=source.url + "/v1") as stack:
        for path, key in (("/v1/hardware", "alpha"), ("/v1/account", "operator")):
            reply = await ask(stack, "GET", path, key=key, headers={"Origin": PAGE})
            assert reply.status == 200
            for name in ("Set-Cookie", "Via", "CF-Ray", "Strict-Transport-Security"):
                assert name not in reply.headers
            assert reply.headers["Server"] == "replicate-gateway"
            assert reply.headers.get("Access-Control-Allow-Origin") != "*"
            assert reply.headers["X-Request-Id"] != "theirs"


async def test_request_id_is_accepted_only_if_harmless(gateway: Stack):
    """A caller's own id helps to find its request; one with a line break, or very long, is replaced."""
    for given in ("abc-123", "A" * 128):
        assert (await ask(gateway, "GET", "/v1/account", headers={"X-Request-Id": given})).headers[
            "X-Request-Id"
        ] == given
    for given in ("", "a b", "A" * 129, "<script>", "a,b"):
        reply = await ask(gateway, "GET", "/v1/account", headers={"X-Request-Id": given})
        assert reply.headers["X-Request-Id"] not in ("", given)


async def test_secret_scanner_finds_a_leak(
    gateway: Stack, secret_scanner: SecretScanner, log_scanner: LogScanner, tmp_path
):
    """A scan that finds nothing proves something only if it would find a leak."""
    secret_scanner.add("a proof", "alpha")
    with pytest.raises(AssertionError, match="a proof"):
        await ask(gateway, "GET", "/v1/account")
    (tmp_path / "kept").write_bytes(b"x" * 100_000 + b"alpha")
    with pytest.raises(AssertionError, match="the file kept"):
        secret_scanner.scan_folder(tmp_path)
    logging.getLogger("gateway.anything").debug("said", extra={"field": {"deep": "alpha"}})
    assert any("a proof" in crash for crash in log_scanner.errors)
    assert "alpha" in await metrics_of(gateway)
    secret_scanner.clear()
    log_scanner.errors.clear()
