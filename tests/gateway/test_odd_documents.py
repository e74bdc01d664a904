"""Documents that are odd: no valid text, or very long."""

import json

import pytest

from tests.support.http_calls import ask, metrics_of
from tests.support.raw_server import answer, raw_server
from tests.support.samples import HEX, create
from tests.support.stack import OpenGateway

ID = "a" * 26


def document(logs: bytes) -> bytes:
    return (
        b'{"id":"%b","status":"succeeded","model":"acme/x","version":"%b","input":{},"output":"done","logs":"%b",'
        b'"created_at":"2026-01-01T00:00:00Z","started_at":"2026-01-01T00:00:01Z",'
        b'"completed_at":"2026-01-01T00:00:05Z","metrics":{"predict_time":4},"urls":{}}'
    ) % (ID.encode(), HEX.encode(), logs)


@pytest.mark.parametrize("more", [0, 2_000_000], ids=["short", "long"])
async def test_invalid_utf_8_is_replaced_and_the_run_ends(open_gateway: OpenGateway, more: int):
    """A model printed raw bytes. The run ends, callers get valid JSON, the list stays readable, and it is counted."""
    made = answer(document(b"a\xff\xfeb" + b"x" * more), status="201 Created")
    async with raw_server(made) as server, open_gateway(base_url=server.url + "/v1") as stack:
        create = {"version": HEX, "input": {}}
        reply = await ask(stack, "POST", "/v1/predictions", json=create, headers={"Prefer": "wait"})
        assert reply.status == 201, reply.text
        for shown in (
            reply.body,
            (await ask(stack, "GET", f"/v1/predictions/{ID}")).body,
            b"%b" % json.dumps((await ask(stack, "GET", "/v1/predictions")).json["results"][0]).encode(),
        ):
            prediction = json.loads(str(shown, "utf-8"))
            assert prediction["status"] == "succeeded"
            assert prediction["logs"] == "a\ufffd\ufffdb" + "x" * more
        assert "replicate_gateway_documents_repaired_total 1" in await metrics_of(stack)


async def test_very_long_logs_are_shortened_to_their_end(open_gateway: OpenGateway):
    """A document of many MiB would hold up everybody, whatever is done with it. It says so, and is counted."""
    logs = b"first" + b"\\n" + b"step 17\\n" * 2_000_000 + b"last"
    made = answer(document(logs), status="201 Created")
    async with raw_server(made) as server, open_gateway(base_url=server.url + "/v1") as stack:
        reply = await ask(stack, "POST", "/v1/predictions", json={"version": HEX, "input": {}})
        assert reply.status == 201, reply.text
        note, *rest = (await ask(stack, "GET", f"/v1/predictions/{ID}")).json["logs"].split("\n")
        assert note.startswith("[The gateway has removed the first 1")
        assert (set(rest[:-1]), rest[-1]) == ({"step 17"}, "last")
        assert 3_000_000 < 8 * len(rest) < 5_000_000
        assert "replicate_gateway_logs_shortened_total 1" in await metrics_of(stack)


@pytest.mark.parametrize(("max_page_bytes", "sizes"), [(1, [1, 1, 1]), (600_000, [1, 1, 1]), (50_000_000, [3])])
async def test_a_page_ends_at_its_size(open_gateway: OpenGateway, max_page_bytes: int, sizes: list[int]):
    """Large predictions come in more pages, each once and in order; a large page is complete."""
    async with open_gateway(limits={"max_page_bytes": max_page_bytes}) as stack:
        made = [
            (await create(stack, model="acme/storyteller", prompt="hi", file=f"{number}" + "x" * 400_000)).json["id"]
            for number in range(3)
        ]
        url, seen, found = "/v1/predictions", [], []
        while url:
            page = await ask(stack, "GET", url)
            assert int(page.headers["Content-Length"]) == len(page.body)
            seen += [each["id"] for each in page.json["results"]]
            found.append(len(page.json["results"]))
            url = page.json["next"]
        assert (seen, found) == (made[::-1], sizes)
        assert all(len(each["input"]["file"]) == 400_001 for each in page.json["results"])
