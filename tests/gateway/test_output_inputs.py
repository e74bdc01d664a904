"""Links of stored outputs as inputs of other predictions (docs/architecture.md, Files and outputs)."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.http_calls import Reply, ask, assert_problem
from tests.support.outputs import CopyingGateway, gateway_with_copies
from tests.support.samples import FORM, content, form
from tests.support.stack import OpenGateway
from tests.support.upstream import creates, version_of

LAKE = {"prompt": "a lake", "seed": 5, "width": 32, "height": 32}
PICTURE = paint("a lake", 5, 32, 32)
TWO_HOURS, MONTH = 7200.0, 31 * 86_400.0
HIT, STORED = "replicate-gateway; hit", "replicate-gateway; fwd=miss; stored"
RULES = {"rules": [{"model": "acme/upscale", "mode": "seeded"}]}


@pytest.fixture
async def it(open_gateway: OpenGateway, upstream: Simulator, tmp_path: Path) -> AsyncIterator[CopyingGateway]:
    """A gateway with a stored picture, whose links at upstream live."""
    async with gateway_with_copies(open_gateway, upstream, tmp_path / "outputs", cache=RULES) as made:
        await paint_lake(made)
        await made.settled(1)
        yield made


async def paint_lake(it: CopyingGateway, *, key: str = "alpha") -> str:
    """Ask for the picture; return the link to it."""
    body = {"version": f"acme/painter:{version_of(it.stack.upstream, 'acme/painter')}", "input": LAKE}
    reply = await ask(it.stack, "POST", "/v1/predictions", key=key, json=body, headers={"Prefer": "wait"})
    assert reply.json["status"] == "succeeded", reply.text
    link: str = reply.json["output"][0]
    return link


async def stored_link(it: CopyingGateway) -> str:
    """Return a new link to the stored copy."""
    link = await paint_lake(it)
    assert link.startswith(f"{it.stack.origin}/outputs/")
    return link


async def upscale(it: CopyingGateway, image: Any, *, key: str = "alpha", **more: Any) -> Reply:
    body = {
        "version": f"acme/upscale:{version_of(it.stack.upstream, 'acme/upscale')}",
        "input": {"image": image, "seed": 1} | more,
    }
    return await ask(it.stack, "POST", "/v1/predictions", key=key, json=body, headers={"Prefer": "wait"})


def sent(it: CopyingGateway) -> Any:
    """Return the input of the newest create that upstream received. No ticket has ever left."""
    seen = [each for each in it.stack.upstream.requests if each.operation == "predictions.create"]
    assert not any("/outputs/" in each.body for each in seen)
    return json.loads(seen[-1].body)["input"]


async def test_link_of_a_hit_becomes_upstreams_own_link_while_that_lives(it: CopyingGateway, upstream: Simulator):
    """The picture is fed to another model; upstream reads its own file, and knows no ticket."""
    link = await stored_link(it)
    reply = await upscale(it, link)
    assert (reply.status, reply.json["status"]) == (201, "succeeded"), reply.text
    assert sent(it)["image"].startswith(upstream.delivery_url)
    assert upstream.requests.count("files.create") == 0


async def test_link_is_uploaded_once_upstream_has_deleted_its_file(it: CopyingGateway, upstream: Simulator):
    """Two hours later the bytes come from the store; a second such create uses the same upload."""
    it.clock.advance(TWO_HOURS)
    for scale in (2, 3):
        reply = await upscale(it, await stored_link(it), scale=scale)
        assert (reply.status, reply.json["status"]) == (201, "succeeded"), reply.text
        assert sent(it)["image"].startswith(f"{upstream.base_url}/files/")
    assert upstream.requests.count("files.create") == 1
    (file,) = (await ask(it.stack, "GET", "/v1/files")).json["results"]
    assert (file["content_type"], file["name"], file["size"]) == ("image/png", "out-0.png", len(PICTURE))


@pytest.mark.parametrize("is_late", [False, True], ids=["link lives", "uploaded"])
async def test_every_form_of_the_same_file_is_one_request(it: CopyingGateway, upstream: Simulator, is_late: bool):
    """Tickets of three predictions, an upload and a data: URI: one run."""
    if is_late:
        it.clock.advance(TWO_HOURS)
    uploaded = await ask(
        it.stack,
        "POST",
        "/v1/files",
        headers={"Content-Type": FORM},
        data=form(content("mine.png", PICTURE, "image/png")),
    )
    inline = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    before = creates(upstream)
    first = await upscale(it, await stored_link(it))
    assert first.headers["Cache-Status"] == STORED
    links = [await stored_link(it) for _ in range(2)]
    for image in (*links, uploaded.json["urls"]["get"], inline):
        again = await upscale(it, image)
        assert again.headers["Cache-Status"].startswith(HIT), image[:80]
        assert again.json["output"] is not None
    assert creates(upstream) == before + 1


@pytest.mark.parametrize(
    "spell",
    [
        lambda link: link.replace("/outputs/", "/x/../outputs/"),
        lambda link: link.replace("/outputs/", "/%6futputs/"),
        lambda link: link.replace("/", "\\"),
        lambda link: "  " + link + "?download=1#x",
        lambda link: link.replace("outputs", "out\tputs"),
        lambda link: link.replace("http://", "https://"),
        lambda link: link.replace("http://", "http://user:secret@"),
        lambda link: link.replace(urlsplit(link).netloc, "old-name.example.com"),
    ],
    ids=["dots", "escape", "backslash", "query", "tab", "https", "user", "former host"],
)
async def test_every_spelling_of_a_link_is_turned_back(it: CopyingGateway, upstream: Simulator, spell):
    """A ticket is a permission, however its link is written."""
    reply = await upscale(it, spell(await stored_link(it)))
    assert reply.status == 201, reply.text
    assert sent(it)["image"].startswith(upstream.delivery_url)


async def test_link_at_any_depth_of_any_input_is_turned_back(it: CopyingGateway, upstream: Simulator):
    link = await stored_link(it)
    version = f"acme/analyze:{version_of(upstream, 'acme/analyze')}"
    given = {"text": link, "more": [{"deep": [link]}], link: 1}
    await ask(it.stack, "POST", "/v1/predictions", json={"version": version, "input": given | {link: 1}})
    seen = [each for each in upstream.requests if each.operation == "predictions.create"]
    body = json.loads(seen[-1].body)["input"]
    assert body["text"].startswith(upstream.delivery_url)
    assert body["more"][0]["deep"][0].startswith(upstream.delivery_url)


@pytest.mark.parametrize("trouble", ["expired", "other team", "forged", "other name", "canceled host", "no ticket"])
async def test_link_that_gives_no_access_is_refused_by_its_path(it: CopyingGateway, upstream: Simulator, trouble: str):
    """422 that names the place, before anything is sent."""
    link, key = await stored_link(it), "alpha"
    match trouble:
        case "expired":
            it.clock.advance(MONTH)
        case "other team":
            key = "beta"
        case "forged":
            link = link.replace(link.split("-")[2][:4], "aaaa", 1)
        case "other name":
            link = link.rpartition("/")[0] + "/other.png"
        case "canceled host":
            link = link.replace(link.split("/")[4][:26], "z" * 26)
        case "no ticket":
            link = f"{it.stack.origin}/outputs/x/y.png"
    before = creates(upstream)
    problem = assert_problem(await upscale(it, link, key=key, extra=[{"a": link}]), 422, origin=None)
    assert problem["invalid_fields"][0]["field"] in ("input.image", "input.extra[0].a")
    assert creates(upstream) == before


async def test_foreign_link_of_the_same_form_stays_as_it_is(it: CopyingGateway, upstream: Simulator):
    """Another gateway's outputs are links like any other: the result is not shared."""
    link = f"https://other.example.com/outputs/{'z' * 26}-0-{'a' * 52}/out.png"
    reply = await upscale(it, link)
    assert reply.headers["Cache-Status"] == "replicate-gateway; fwd=bypass; detail=external-link"
    seen = [each for each in upstream.requests if each.operation == "predictions.create"]
    assert json.loads(seen[-1].body)["input"]["image"] == link


async def test_number_of_links_is_bounded(it: CopyingGateway, upstream: Simulator):
    """Each is looked up: an input must not ask the store a thousand questions."""
    links = [f"https://x.example/outputs/{n:026}-0-{'a' * 52}/out.png" for n in range(251)]
    assert (await upscale(it, links[0], more=links[1:250])).status == 201
    problem = assert_problem(await upscale(it, links[0], more=links[1:]), 422, origin=None)
    assert problem["invalid_fields"][0]["field"] == "input"


async def test_lost_copy_is_refused(it: CopyingGateway, upstream: Simulator, tmp_path: Path):
    """The bytes are gone from the output store, and upstream has none: no create with a dead link."""
    link = await stored_link(it)
    it.clock.advance(TWO_HOURS)
    for path in (tmp_path / "outputs").rglob("*"):
        if path.is_file():
            path.unlink()
    before = creates(upstream)
    problem = assert_problem(await upscale(it, link), 422, origin=None)
    assert problem["invalid_fields"][0]["field"] == "input.image"
    assert creates(upstream) == before


async def test_estimate_counts_the_link_by_its_content_and_uploads_nothing(it: CopyingGateway, upstream: Simulator):
    it.clock.advance(TWO_HOURS)
    version = f"acme/upscale:{version_of(upstream, 'acme/upscale')}"
    prints = []
    for _ in range(2):
        body = {"version": version, "input": {"image": await stored_link(it), "seed": 1}}
        prints.append((await ask(it.stack, "POST", "/gateway/estimate", json=body)).json["fingerprint"])
    assert prints[0] == prints[1] is not None
    assert upstream.requests.count("files.create") == 0


async def test_idempotent_repeat_matches_after_upstreams_link_has_died(it: CopyingGateway, upstream: Simulator):
    """The repeated request is the same bytes, whatever was sent upstream for it."""
    version = f"acme/upscale:{version_of(upstream, 'acme/upscale')}"
    body = {"version": version, "input": {"image": await stored_link(it), "seed": 1}}
    headers = {"Idempotency-Key": quote("one")}
    first = await ask(it.stack, "POST", "/v1/predictions", json=body, headers=headers)
    it.clock.advance(TWO_HOURS)
    again = await ask(it.stack, "POST", "/v1/predictions", json=body, headers=headers)
    assert (again.status, again.json["id"]) == (201, first.json["id"])
