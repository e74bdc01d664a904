"""Links and files in inputs: what makes two requests one, and what keeps a result from being reused."""

import asyncio
from typing import Any

import pytest

from gateway.simulator import Simulator
from tests.support.http_calls import Reply, ask, metrics_of
from tests.support.samples import FORM, content, form
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import creates, version_of

CAMERA = "https://example.com/cam/latest.jpg"
HIT = "replicate-gateway; hit"
STORED = "replicate-gateway; fwd=miss; stored"
EXTERNAL = "replicate-gateway; fwd=bypass; detail=external-link"
WAIT = {"Prefer": "wait"}


def body(upstream: Simulator, **given: Any) -> dict[str, Any]:
    return {
        "version": f"acme/storyteller:{version_of(upstream, 'acme/storyteller')}",
        "input": {"prompt": "hi", "seed": 5, "max_tokens": 4} | given,
    }


async def tell(stack: Stack, headers: dict[str, str] | None = None, **given: Any) -> Reply:
    reply = await ask(
        stack, "POST", "/v1/predictions", json=body(stack.upstream, **given), headers=WAIT | (headers or {})
    )
    assert (reply.status, reply.json["status"]) == (201, "succeeded"), reply.text
    return reply


async def test_picture_on_another_host_is_read_anew_each_time(open_gateway: OpenGateway, upstream: Simulator):
    """The camera's picture changes and its address does not. Headers, explain, estimate and metrics give the reason."""
    async with open_gateway() as stack:
        replies = [await tell(stack, image=CAMERA) for _ in range(2)]
        assert [each.headers["Cache-Status"] for each in replies] == [EXTERNAL] * 2
        explained = await ask(stack, "GET", f"/gateway/explain/{replies[0].json['id']}")
        assert (explained.json["reason"], explained.json["deterministic"]) == ("external-link", False)
        estimate = await ask(stack, "POST", "/gateway/estimate", json=body(upstream, image=CAMERA))
        assert (estimate.json["result"], estimate.json["reason"]) == ("run", "external-link")
        assert 'reason="external-link"' in await metrics_of(stack)
        assert creates(upstream) == 2


async def test_link_in_a_prompt_is_text(open_gateway: OpenGateway, upstream: Simulator):
    async with open_gateway() as stack:
        assert (await tell(stack, prompt=f"describe {CAMERA}")).headers["Cache-Status"] == STORED
        assert (await tell(stack, prompt=f"describe {CAMERA}")).headers["Cache-Status"].startswith(HIT)


async def test_caller_may_vouch_for_a_link(open_gateway: OpenGateway, upstream: Simulator):
    asserted = {"Gateway-Deterministic": "true"}
    async with open_gateway(teams={"alpha": {"may_assert_deterministic": True}}) as stack:
        assert (await tell(stack, asserted, image=CAMERA)).headers["Cache-Status"] == STORED
        assert (await tell(stack, asserted, image=CAMERA)).headers["Cache-Status"].startswith(HIT)


async def test_link_that_never_changes_counts_by_its_text(open_gateway: OpenGateway, upstream: Simulator):
    immutable = ["https://cdn.example.com/v1/*"]
    async with open_gateway(cache={"immutable_links": immutable}) as stack:
        for link in ("https://replicate.delivery/pbxt/a.png", "https://cdn.example.com/v1/a.png"):
            assert (await tell(stack, image=link)).headers["Cache-Status"] == STORED
            assert (await tell(stack, image=link)).headers["Cache-Status"].startswith(HIT)
        for link in ("https://cdn.example.com/v1/../a.png", "https://cdn.example.com@evil.example/v1/a.png"):
            assert (await tell(stack, image=link)).headers["Cache-Status"] == EXTERNAL


async def test_rule_says_which_inputs_are_text(open_gateway: OpenGateway, upstream: Simulator):
    rule = {"model": "acme/storyteller", "mode": "seeded", "text_inputs": ["note"]}
    async with open_gateway(cache={"rules": [rule]}) as stack:
        assert (await tell(stack, note=CAMERA)).headers["Cache-Status"] == STORED
        assert (await tell(stack, prompt=CAMERA)).headers["Cache-Status"] == EXTERNAL


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
async def test_equal_bytes_of_another_media_type_are_another_request(
    open_gateway: OpenGateway, upstream: Simulator, at_once: bool
):
    """Models go by the type: neither a hit nor a join answers with the other's result."""
    async with open_gateway() as stack:
        files = [f"data:{media};base64,aGVsbG8=" for media in ("image/png", "audio/wav")]
        if at_once:
            replies = await asyncio.gather(*(tell(stack, file=file) for file in files))
        else:
            replies = [await tell(stack, file=file) for file in files]
        assert {each.headers["Cache-Status"] for each in replies} == {STORED}
        assert creates(upstream) == 2


async def test_upload_and_data_uri_of_one_type_are_one_request(open_gateway: OpenGateway, upstream: Simulator):
    async with open_gateway() as stack:
        links = []
        for name, media in (("a.png", "image/png"), ("b.PNG", "image/png"), ("a.jpg", "image/png"), ("a.png", "a/b")):
            data = form(content(name, b"hello", media))
            made = await ask(stack, "POST", "/v1/files", headers={"Content-Type": FORM}, data=data)
            links.append(made.json["urls"]["get"])
        assert (await tell(stack, file="data:image/png;base64,aGVsbG8=")).headers["Cache-Status"] == STORED
        statuses = [(await tell(stack, file=link)).headers["Cache-Status"] for link in links]
        assert [status.startswith(HIT) for status in statuses] == [True, True, False, False]
