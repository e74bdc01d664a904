"""The gateway sends callers webhooks about their predictions, in Replicate's form."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from gateway.simulator import Simulator
from tests.support.http_calls import ask, assert_problem, metrics_of
from tests.support.polling import until
from tests.support.samples import create, finished
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import creates, version_of
from tests.support.webhook_receiver import Receiver, answering, start_receiver

ALL = ["start", "output", "logs", "completed"]
LOCAL = {"webhooks": {"allow_http": True, "allow_private_addresses": True}}
SEEDED = {"prompt": "a llama", "seed": 7}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with start_receiver() as made:
        yield made


@pytest.fixture
async def stack(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway that may reach receivers on this machine."""
    async with open_gateway(**LOCAL) as made:
        yield made


async def make(
    stack: Stack,
    receiver: Receiver,
    *,
    model: str = "acme/storyteller",
    key: str = "alpha",
    events: list[str] | None = None,
    headers: dict[str, str] | None = None,
    path: str = "/hook",
    **given,
):
    """Create a prediction with a webhook; return what the caller is answered."""  # fmt: skip
    body = {"version": version_of(stack.upstream, model), "input": given, "webhook": receiver.url + path}
    if events is not None:
        body["webhook_events_filter"] = events
    reply = await ask(stack, "POST", "/v1/predictions", key=key, json=body, headers=headers or {})
    assert reply.status == 201, reply.text
    return reply.json


async def secret_of(stack: Stack, key: str = "alpha") -> str:
    return (await ask(stack, "GET", "/v1/webhooks/default/secret", key=key)).json["key"]


def check(secret: str, receiver: Receiver) -> None:
    """Fail unless every message was signed, as the library of the standard has it."""
    for message in receiver.messages:
        assert Webhook(secret).verify(message.body, dict(message.headers)) == message.json


@pytest.mark.parametrize("size", [1, 300_000], ids=["small", "large"])
async def test_webhooks_follow_the_run_event_by_event(stack: Stack, receiver: Receiver, size: int):
    """A receiver of all events gets the start, growing output and the end, in this order, whatever the input's size."""
    made = await make(stack, receiver, events=ALL, prompt="hi", max_tokens=40, token_delay=1.0, file="x" * size)
    await receiver.until(lambda: "succeeded" in receiver.statuses(made["id"]))
    statuses = receiver.statuses(made["id"])
    assert statuses == ["processing"] * (len(statuses) - 1) + ["succeeded"]
    assert {message.json["input"]["file"] for message in receiver.messages} == {"x" * size}
    outputs = [message.json["output"] or [] for message in receiver.messages]
    assert outputs[0] == []
    assert len(outputs) >= 3
    assert all(outputs[n] == outputs[n + 1][: len(outputs[n])] for n in range(len(outputs) - 1))
    shown = await finished(stack, made["id"])
    assert receiver.messages[-1].json == shown
    check(await secret_of(stack), receiver)
    assert len(set(receiver.ids)) == len(receiver.ids)


async def test_webhook_body_is_what_the_caller_sees(stack: Stack, receiver: Receiver, upstream: Simulator):
    """The caller's links and webhook URL with its query, and nothing that grants access."""
    made = await make(stack, receiver, path="/hook?order=1&x=%2F", prompt="hi")
    await receiver.until(lambda: "succeeded" in receiver.statuses(made["id"]))
    message = receiver.messages[-1]
    assert message.path == "/hook?order=1&x=%2F"
    assert message.json["urls"]["get"] == f"{stack.base_url}/predictions/{made['id']}"
    assert message.json["urls"]["stream"].startswith(f"{stack.base_url}/streams/")
    assert message.json["webhook"] == receiver.url + "/hook?order=1&x=%2F"
    assert message.headers["Content-Type"] == "application/json"
    assert {"Authorization", "Cookie"}.isdisjoint(message.headers)
    assert upstream.base_url.encode() not in message.body
    for sent in upstream.requests:
        assert "webhook" not in json.loads(sent.body or "{}")


async def test_default_filter_sends_output_and_end(stack: Stack, receiver: Receiver):
    """As Replicate does: no start, no logs alone."""
    made = await make(stack, receiver, model="replicate/hello-world", text="x")
    await receiver.until(lambda: "succeeded" in receiver.statuses(made["id"]))
    assert receiver.statuses(made["id"]) == ["processing", "succeeded"]
    assert [message.json["output"] for message in receiver.messages] == ["hello x", "hello x"]
    assert "completed_at" not in receiver.messages[0].json
    assert receiver.messages[1].json["metrics"]


@pytest.mark.parametrize("event", ["start", "output", "completed"])
async def test_filtered_events_are_not_sent(stack: Stack, receiver: Receiver, event: str):
    """One kind of event: one message of a quick run."""
    made = await make(stack, receiver, model="replicate/hello-world", events=[event], text="x")
    await finished(stack, made["id"])
    last = await make(stack, receiver, model="replicate/hello-world", events=["completed"], text="y")
    await receiver.until(lambda: receiver.of(last["id"]))
    await receiver.until(lambda: receiver.of(made["id"]))
    (message,) = receiver.of(made["id"])
    expected = {
        "start": ("processing", None),
        "output": ("processing", "hello x"),
        "completed": ("succeeded", "hello x"),
    }
    assert (message.json["status"], message.json.get("output")) == expected[event]


async def test_hit_sends_webhooks_under_its_own_id(stack: Stack, receiver: Receiver, upstream: Simulator):
    """A response from a finished run comes with the webhooks of a quick run."""
    first = await make(stack, receiver, model="acme/painter", **SEEDED)
    await receiver.until(lambda: "succeeded" in receiver.statuses(first["id"]))
    hit = await make(stack, receiver, model="acme/painter", events=ALL, **SEEDED)
    assert hit["id"] != first["id"]
    await receiver.until(lambda: "succeeded" in receiver.statuses(hit["id"]))
    assert receiver.statuses(hit["id"]) == ["processing", "processing", "succeeded"]
    start, output, completed = (message.json for message in receiver.of(hit["id"]))
    assert start["output"] is None
    assert output["output"] == completed["output"] == first_output(receiver, first["id"])
    assert first["id"].encode() not in b"".join(message.body for message in receiver.of(hit["id"]))
    assert creates(upstream) == 1


def first_output(receiver: Receiver, prediction_id: str):
    return receiver.of(prediction_id)[-1].json["output"]


async def test_each_caller_of_a_shared_run_gets_its_own_webhooks(stack: Stack, upstream: Simulator):
    """Two callers, one run: each receiver gets only its caller's prediction."""
    async with start_receiver() as mine, start_receiver() as yours:
        given = {"prompt": "a llama", "seed": 7, "max_tokens": 30, "token_delay": 1.0}
        first = await make(stack, mine, events=ALL, **given)
        second = await make(stack, yours, **given)
        for receiver, made in ((mine, first), (yours, second)):
            await receiver.until(lambda r=receiver, m=made: "succeeded" in r.statuses(m["id"]))
            assert {message.json["id"] for message in receiver.messages} == {made["id"]}
        assert creates(upstream) == 1


async def test_cancel_sends_one_webhook_and_the_run_goes_on(stack: Stack, upstream: Simulator):
    """The caller who cancelled gets its webhook at once, the others at the end."""
    async with start_receiver() as leaver, start_receiver() as stayer:
        given = {"prompt": "a llama", "seed": 7, "max_tokens": 40, "token_delay": 1.0}
        first = await make(stack, leaver, events=["completed"], **given)
        second = await make(stack, stayer, events=["completed"], **given)
        await ask(stack, "POST", f"/v1/predictions/{first['id']}/cancel")
        await leaver.count(1)
        assert not stayer.messages
        assert (leaver.messages[0].json["status"], leaver.messages[0].json["output"]) == ("canceled", None)
        await stayer.count(1)
        assert stayer.messages[0].json["status"] == "succeeded"
        await finished(stack, second["id"])
        assert len(leaver.messages) == 1


async def test_deadline_sends_a_webhook(stack: Stack, receiver: Receiver):
    """A prediction whose time is over notifies its receiver."""
    headers = {"Cancel-After": "5s"}
    made = await make(stack, receiver, model="acme/slow", events=["completed"], headers=headers, duration=600)
    await receiver.count(1)
    assert receiver.statuses(made["id"]) == ["canceled"]


async def test_failure_sends_a_webhook(stack: Stack, receiver: Receiver):
    """With its error, and after its start."""
    made = await make(stack, receiver, model="acme/fail", events=["start", "completed"])
    await receiver.until(lambda: "failed" in receiver.statuses(made["id"]))
    assert receiver.statuses(made["id"]) == ["processing", "failed"]
    first, last = (message.json for message in receiver.messages)
    assert (first["error"], bool(last["error"])) == (None, True)


async def test_training_sends_webhooks_like_predictions(stack: Stack, receiver: Receiver, upstream: Simulator):
    """A training that runs for an hour need not be polled."""
    version = version_of(upstream, "acme/storyteller")
    body = {
        "destination": "acme/painter",
        "input": {"train_data": "https://example.com/data.zip"},
        "webhook": receiver.url,
        "webhook_events_filter": ["start", "completed"],
    }
    reply = await ask(stack, "POST", f"/v1/models/acme/storyteller/versions/{version}/trainings", json=body)
    assert reply.status == 201, reply.text
    made = reply.json
    await receiver.until(lambda: "succeeded" in receiver.statuses(made["id"]))
    assert receiver.statuses(made["id"]) == ["processing", "succeeded"]
    assert receiver.messages[-1].json["urls"]["get"] == f"{stack.base_url}/trainings/{made['id']}"
    check(await secret_of(stack), receiver)


async def test_each_team_signs_with_its_own_secret(stack: Stack):
    """A team cannot forge another team's messages."""
    async with start_receiver() as mine, start_receiver() as yours:
        for receiver, key in ((mine, "alpha"), (yours, "beta")):
            await make(stack, receiver, key=key, model="replicate/hello-world", text="x")
            await receiver.count(2)
            check(await secret_of(stack, key), receiver)
        assert await secret_of(stack, "alpha") != await secret_of(stack, "beta")


async def test_webhooks_cost_no_upstream_reads(stack: Stack, upstream: Simulator):
    """Twenty receivers of one run cost upstream no more reads than none."""
    given = {"prompt": "a llama", "seed": 7, "max_tokens": 20, "token_delay": 1.0}
    silent = await create(stack, model="acme/storyteller", **given)
    await finished(stack, silent.json["id"])
    alone = upstream.requests.count("predictions.get")
    async with start_receiver() as receiver:
        made = [await make(stack, receiver, events=ALL, **given | {"seed": 8}) for _ in range(20)]
        await receiver.until(lambda: all("succeeded" in receiver.statuses(each["id"]) for each in made))
    assert creates(upstream) == 2
    assert upstream.requests.count("predictions.get") - alone <= alone * 1.5 + 5


async def test_webhook_links_use_the_public_url(open_gateway: OpenGateway, receiver: Receiver):
    """Outside a request there is no Host to use."""
    async with open_gateway(
        **LOCAL, server={"public_url": "https://gateway.example"}, upstream={"webhooks": "off"}
    ) as stack:
        made = await make(stack, receiver, model="replicate/hello-world", text="x")
        await receiver.count(2)
        link = f"https://gateway.example/v1/predictions/{made['id']}"
        assert {message.json["urls"]["get"] for message in receiver.messages} == {link}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "https://127.0.0.1/x", "https://localhost/", "https://[::1]/", "https://10.0.0.1:8/",
            "https://169.254.169.254/latest/meta-data"]
)  # fmt: skip
async def test_private_webhook_address_is_refused_at_create(gateway: Stack, upstream: Simulator, url: str):
    """The caller learns it at once, and no run is paid for."""
    body = {"version": version_of(upstream, "acme/storyteller"), "input": {"prompt": "hi"}, "webhook": url}
    problem = assert_problem(await ask(gateway, "POST", "/v1/predictions", json=body), 422, origin=None)
    assert problem["invalid_fields"][0]["field"] == "webhook"
    assert creates(upstream) == 0


async def test_deliveries_are_counted_in_metrics(stack: Stack, receiver: Receiver):
    """Operators see how many were delivered, how many wait and since when."""
    receiver.answer = answering(500)
    await make(stack, receiver, model="replicate/hello-world", text="x")
    await receiver.count(2)
    wanted = (
        'replicate_gateway_webhook_deliveries_total{event="output",result="answered"} 1.0',
        'replicate_gateway_webhook_deliveries_total{event="completed",result="answered"} 1.0',
    )
    seen = ""
    while not all(line in seen for line in wanted):
        seen = await metrics_of(stack)
    for name in ("webhooks_queued", "webhooks_dead", "webhooks_oldest_queued_seconds", "webhooks_dropped_total"):
        assert f"replicate_gateway_{name}" in seen
    await until(lambda: receiver.messages)


async def test_webhooks_in_progress_end_with_the_gateway(open_gateway: OpenGateway, receiver: Receiver):
    """The next start sends them again."""
    called, goes_on = asyncio.Event(), asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        called.set()
        await goes_on.wait()
        return web.Response()

    receiver.answer = hang
    async with open_gateway(**LOCAL) as stack:
        await make(stack, receiver, prompt="hi")
        await called.wait()
        running = {task for task in asyncio.all_tasks() if "webhook" in task.get_name()}
        assert running
    assert all(task.done() for task in running)
    goes_on.set()
