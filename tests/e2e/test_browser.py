"""A real Chromium: a page of another origin uses npm `replicate`, plain fetch and EventSource against the gateway."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.pages import Seen, Site, visit_page
from tests.support.polling import holds, until
from tests.support.simulator_models import hold_runs_until_read
from tests.support.stack import Stack, start_gateway
from tests.support.upstream import assert_upstream_saw_no_key, creates, version_of

pytestmark = [pytest.mark.chromium, pytest.mark.node, pytest.mark.timeout(60)]

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24}
PICTURE = base64.b64encode(paint("a picture", 1, 16, 16)).decode()


Visit = Callable[..., Awaitable[Seen]]


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path, site: Site, a_quiet_gateway: None) -> AsyncIterator[Stack]:
    """A gateway whose team alpha has pages at the listed origin, and a key that pages may show."""
    page_key = {"name": "page", "origins": [site.listed], "scopes": ["read", "predict", "files"]}
    teams = {"alpha": {"origins": [site.listed], "keys": [page_key]}}
    async with start_gateway(upstream, tmp_path, teams=teams) as stack:
        yield stack
        assert_upstream_saw_no_key(stack)


@pytest.fixture
async def browser_token(gateway: Stack, site: Site) -> str:
    """A short-lived token for a page, as a backend would mint it."""
    async with gateway.caller() as caller:
        wanted = {"ttl_seconds": 300, "scopes": ["read", "predict", "files"], "origins": [site.listed]}
        async with caller.post("/gateway/tokens", json=wanted) as answer:
            assert answer.status == 201
            token: str = (await answer.json())["token"]
            return token


@pytest.fixture
def visit(gateway: Stack, site: Site, browser_token: str, tmp_path: Path) -> Visit:
    """Open the page and run scenarios: `await visit(("run", {…}), …)`."""

    async def open_page(
        *scenarios: tuple[str, dict[str, Any]], origin: str | None = None, key: str | None = None
    ) -> Seen:
        return await visit_page(
            origin or site.listed,
            scenarios,
            base_url=gateway.base_url,
            key=key or browser_token,
            profile=tmp_path / "profile",
        )

    return open_page


@pytest.mark.parametrize("credential", ["browser token", "publishable key"])
async def test_page_runs_streams_and_generates_an_image(
    visit: Visit, upstream: Simulator, gateway: Stack, credential: str
):
    """Awaited text, streamed text and a picture appear on the page; the console shows no error."""
    storyteller = f"acme/storyteller:{version_of(upstream, 'acme/storyteller')}"
    hold_runs_until_read(upstream, "meta/meta-llama-3-8b-instruct", after=2)
    seen = await visit(
        ("run", {"ref": storyteller, "input": STORY}),
        # Of another seed: an equal request would be answered from the first one's run.
        ("run", {"ref": storyteller, "input": STORY | {"seed": 8}, "wait": {"mode": "poll", "interval": 50}}),
        ("stream", {"ref": "meta/meta-llama-3-8b-instruct", "input": STORY}),
        ("paint", {"ref": "black-forest-labs/flux-schnell", "input": {"prompt": "a lake", "seed": 3}}),
        key=gateway.keys["alpha.page"] if credential == "publishable key" else None,
    )
    assert [each.get("error") for each in seen.results] == [None] * 4
    blocked, polled, streamed, painted = (each["result"] for each in seen.results)
    assert blocked["text"] == "".join(upstream.predictions[0].output)
    assert polled["text"] == "".join(upstream.predictions[1].output)
    assert blocked["statuses"][0] == "succeeded"
    assert polled["statuses"][0] == "starting"
    assert streamed["text"] == "".join(upstream.predictions[2].output)
    assert streamed["events"][-1] == "done"
    assert painted == {"width": 512, "height": 512}
    assert seen.texts == [blocked["text"], polled["text"], streamed["text"]]
    assert seen.pictures == 1
    assert seen.complaints == []
    assert creates(upstream) == 4
    assert upstream.requests.count("streams.get") == 1
    assert not any(each["url"].startswith(upstream.base_url) for each in seen.requests)


async def test_page_uploads_a_blob(visit: Visit, upstream: Simulator, gateway: Stack):
    """By `files.create`, by a Blob as the only input, and with text beside it, where 1.4.0 inlines it in a browser."""
    upscale = f"acme/upscale:{version_of(upstream, 'acme/upscale')}"
    seen = await visit(
        ("upload", {"ref": upscale, "base64": PICTURE}),
        ("runWithBlob", {"ref": upscale, "base64": PICTURE}),
        ("runWithBlob", {"ref": upscale, "base64": PICTURE, "more": {"scale": 3}}),
    )
    assert [each.get("error") for each in seen.results] == [None] * 3
    uploaded, alone, beside = (each["result"] for each in seen.results)
    assert uploaded["file"]["urls"]["get"] == f"{gateway.base_url}/files/{uploaded['file']['id']}"
    assert uploaded["file"]["id"] in uploaded["listed"]
    assert uploaded["deleted"] is True
    assert (uploaded["width"], alone["width"], beside["width"]) == (32, 32, 48)
    posted = [each.json["input"]["image"] for each in upstream.requests.find("predictions.create")]
    assert [each.split("/")[0] for each in posted] == ["http:", "http:", "data:image"]
    assert all(each.startswith(f"{upstream.base_url}/files/") for each in posted[:2])
    assert upstream.requests.count("files.create") == 2
    assert seen.complaints == []


async def test_fetch_and_event_source_need_no_library(visit: Visit, upstream: Simulator):
    """The few lines that most pages have: POST and wait, and an EventSource that needs no key."""
    version = version_of(upstream, "acme/storyteller")
    seen = await visit(
        ("plainFetch", {"version": version, "input": STORY}),
        # Of other seeds, so that each is a run of its own.
        ("eventSource", {"version": version, "input": STORY | {"seed": 8}}),
        ("eventSource", {"version": version, "input": STORY | {"seed": 9}, "withCredentials": True}),
    )
    assert [each.get("error") for each in seen.results] == [None] * 3
    fetched, *streamed = (each["result"] for each in seen.results)
    assert fetched["status"] == 201
    assert fetched["again"] == fetched["canceled"] == "succeeded"
    assert fetched["text"] == "".join(upstream.predictions[0].output)
    assert {"x-request-id", "preference-applied", "location"} <= set(fetched["headers"])
    for each, prediction in zip(streamed, upstream.predictions[1:], strict=True):
        assert each["output"] == prediction.output
        assert each["types"][-1] == "done"
        assert len(set(each["ids"])) == len(each["ids"])
    assert creates(upstream) == 3
    assert seen.complaints == []


async def test_page_can_read_errors(visit: Visit, upstream: Simulator):
    """An error is a response with its text, not "Failed to fetch": its headers let the page read it."""
    seen = await visit(
        ("run", {"ref": "black-forest-labs/flux-schnell", "input": {}}),
        ("run", {"ref": f"acme/fail:{version_of(upstream, 'acme/fail')}", "input": {"kind": "nsfw"}}),
        ("stream", {"ref": f"acme/fail:{version_of(upstream, 'acme/fail')}", "input": {"kind": "exception"}}),
    )
    refused, failed, broken = (each["error"] for each in seen.results)
    assert refused["status"] == 422
    assert "prompt is required" in refused["message"]
    assert failed["message"].startswith("Prediction failed: NSFW")
    assert broken["message"] == '{"detail":"division by zero"}'
    assert not [each for each in seen.complaints if "CORS" in each]


async def test_abort_signal_cancels_the_run(visit: Visit, upstream: Simulator):
    """An AbortSignal between two polls: the run ends upstream."""
    slow = f"acme/slow:{version_of(upstream, 'acme/slow')}"
    seen = await visit(("abort", {"ref": slow, "input": {"duration": 600}}))
    assert seen.results[0]["result"][-1] == "canceled"
    await until(lambda: upstream.predictions[0].status == "canceled")


async def test_other_client_methods_work_in_a_page(visit: Visit, upstream: Simulator):
    """Lists, search by QUERY, account: every method is preflighted, and every preflight is answered without a key."""
    seen = await visit(("everything", {"input": STORY}))
    assert seen.results[0].get("error") is None
    assert seen.results[0]["result"]["account"] == "alpha"
    assert seen.results[0]["result"]["search"] >= 2
    assert seen.preflights
    assert seen.complaints == []


async def test_preflights_are_cached_by_the_browser(visit: Visit, upstream: Simulator):
    """`Access-Control-Max-Age`: the polls of one prediction cost one OPTIONS, not one each."""
    slow = f"acme/slow:{version_of(upstream, 'acme/slow')}"
    given = {"ref": slow, "input": {"duration": 130, "seed": 1}, "wait": {"mode": "poll", "interval": 100}}
    seen = await visit(("run", given))
    assert seen.results[0].get("error") is None
    polls = [each for each in seen.requests if each["method"] == "GET" and "/predictions/" in each["url"]]
    assert len(polls) > 10
    # Without Max-Age Chromium keeps a preflight for five seconds, and this takes more than six.
    assert len([each for each in seen.preflights if "/predictions/" in each["url"]]) == 1


async def test_page_of_an_unlisted_origin_gets_nothing(visit: Visit, upstream: Simulator, gateway: Stack, site: Site):
    """The same page under a name that is not listed: every call fails in the browser, and nothing is run."""
    ref = "acme/official-storyteller"
    for key in (None, gateway.keys["alpha.page"]):
        seen = await visit(
            ("run", {"ref": ref, "input": STORY}),
            ("stream", {"ref": ref, "input": STORY}),
            ("bareFetch", {}),
            origin=site.unlisted,
            key=key,
        )
        assert [each["error"]["name"] for each in seen.results] == ["TypeError"] * 3
        assert {each["error"]["message"] for each in seen.results} == {"Failed to fetch"}
        assert any("CORS" in each for each in seen.complaints)
    await holds(lambda: creates(upstream) == 0)


async def test_publishable_key_does_not_work_outside_its_page(gateway: Stack, upstream: Simulator, browser_token: str):
    """A program that copied the key from the page is refused."""
    for key in (gateway.keys["alpha.page"], browser_token):
        async with gateway.caller() as caller:
            headers = {"Authorization": f"Bearer {key}"}
            for origin in ({}, {"Origin": "https://elsewhere.example"}):
                body = {"input": STORY}
                path = "/v1/models/acme/official-storyteller/predictions"
                async with caller.post(path, json=body, headers=headers | origin) as answer:
                    assert answer.status == 403
    assert creates(upstream) == 0
