"""What upstream takes, the gateway takes, with the same meaning: recordings, published examples, clients' habits."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from gateway.http.route import OPEN_ROUTES, Route
from gateway.http.routes import OWN, PUBLIC
from gateway.simulator import Simulator
from tests.support.cassettes import CASSETTES, interactions
from tests.support.hostile import long_unless
from tests.support.http_calls import PAGE, Reply, ask, assert_problem
from tests.support.polling import until
from tests.support.raw_server import answer, raw_server
from tests.support.samples import FORM, create, fill, finished, form
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

REFUSALS = {400, 405, 411, 413, 415, 422, 431}
RECORDED = {f"{path.stem} {each['method']} {each['path']}": each for path in CASSETTES for each in interactions(path)}


@pytest.mark.skipif(not RECORDED, reason="the recordings are not available")
@pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED)
async def test_what_the_recordings_send_is_taken(gateway: Stack, recorded: dict[str, Any]) -> None:
    """Each request of the recordings, with its own headers, is refused by the gateway only where upstream does so."""
    dropped = ("authorization", "host", "content-length", "connection", "accept-encoding")
    sent: dict[str, Any] = {
        "headers": {name: value for name, value in recorded["headers"].items() if name not in dropped},
        "data": recorded["body"],
    }
    through = await ask(gateway, recorded["method"], f"/v1{recorded['path']}", key="operator", **sent)
    sent["headers"]["Authorization"] = f"Bearer {gateway.upstream.token}"
    url = gateway.upstream.base_url + recorded["path"]
    direct = await ask(gateway, recorded["method"], url, key=None, **sent)
    assert through.status == direct.status, through.text


def story(upstream: Simulator, **more: Any) -> bytes:
    """Write the body of a create that is over soon."""
    body = {"version": version_of(upstream, "acme/storyteller"), "input": {"prompt": "hi"}, **more}
    return json.dumps(body).encode()


PATHS = ("/v1/predictions", "/predictions", "/v1/v1/predictions")
CONTENT_TYPES = (
    None,
    "application/json; charset=utf-8",
    "application/x-www-form-urlencoded",
    "text/plain",
    "text/plain;charset=UTF-8",
    "text/json",
    "multipart/form-data",
    "nonsense",
)


def content_type_rows() -> list[Any]:
    """Make a test of each path and content type. `make test` runs one path for each content type."""
    return [
        pytest.param(
            path, content_type, id=f"{path}-{content_type}", marks=long_unless((place + column) % len(PATHS) == 0)
        )
        for place, path in enumerate(PATHS)
        for column, content_type in enumerate(CONTENT_TYPES)
    ]


@pytest.mark.parametrize(("path", "content_type"), content_type_rows())
async def test_json_is_taken_under_any_content_type(gateway: Stack, path: str, content_type: str | None) -> None:
    """The published examples post JSON by `curl -d`, which says that it is a form."""
    headers = {"Content-Type": content_type} if content_type else {}
    reply = await ask(gateway, "POST", path, data=story(gateway.upstream), headers=headers)
    assert reply.status == 201, reply.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/models/acme/official-storyteller/predictions", {"input": {"prompt": "hi"}}),
        ("POST", "/v1/deployments/acme/story-service/predictions", {"input": {"prompt": "hi"}}),
        ("PATCH", "/v1/deployments/acme/story-service", {"min_instances": 1}),
        (
            "POST",
            "/v1/models",
            {"owner": "acme", "name": "fresh", "visibility": "private", "hardware": "cpu"},
        ),
    ],
    ids=["model", "deployment", "update", "new model"],
)
async def test_every_route_takes_json_as_curl_sends_it(gateway: Stack, method: str, path: str, body: Any) -> None:
    """Not creates by version alone."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = await ask(gateway, method, path, data=json.dumps(body).encode(), headers=headers)
    assert reply.status not in REFUSALS, reply.text


PREFERENCES: list[tuple[str, str | None]] = [
    ("wait", "wait=60"),
    ("wait=2", "wait=2"),
    ("wait=60", "wait=60"),
    ("wait=120", "wait=60"),
    ("wait=300", "wait=60"),
    ("wait=99999999999999999999", "wait=60"),
    ("wait=0", None),
    ("wait=-1", None),
    ("wait=soon", None),
    ("wait=soon, wait=3", "wait=3"),
    ("wait=3, wait=5", "wait=3"),
    ("respond-async", None),
    ("respond-async, wait=5", "wait=5"),
    ("wait=5, respond-async", "wait=5"),
    ("handling=lenient; x=y, wait = 5", "wait=5"),
    ('return="minimal, wait=7", wait=5', "wait=5"),
    ("return=minimal", None),
    (",", None),
    ("", None),
]
"""A header, and what is applied of it."""


@pytest.mark.parametrize(("header", "applied"), PREFERENCES)
async def test_preferences_are_taken_as_far_as_they_are_known(gateway: Stack, header: str, applied: str | None) -> None:
    """RFC 7240: what is unknown is ignored; the first valid `wait` counts, and more than 60 is 60."""
    headers = {"Content-Type": "application/json", "Prefer": header}
    reply = await ask(gateway, "POST", "/v1/predictions", data=story(gateway.upstream), headers=headers)
    assert reply.status == 201, reply.text
    assert reply.headers.get("Preference-Applied") == applied
    assert (reply.json["status"] == "succeeded") == (applied is not None)


async def test_preferences_may_come_in_several_headers(gateway: Stack) -> None:
    """A proxy, or a client, may send each in its own."""
    headers = [("Content-Type", "application/json"), ("Prefer", "respond-async"), ("Prefer", "wait=4")]
    reply = await ask(gateway, "POST", "/v1/predictions", data=story(gateway.upstream), headers=headers)
    assert reply.status == 201, reply.text
    assert reply.headers["Preference-Applied"] == "wait=4"


HOOK = "https://receiver.example.com/hook"
OTHER = "https://receiver.example.com/other"


LEGACY: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"webhook_completed": None}, {}),
    ({"webhook_completed": HOOK}, {"webhook": HOOK, "webhook_events_filter": ["completed"]}),
    ({"webhook_completed": OTHER, "webhook": HOOK}, {"webhook": HOOK}),
]


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        pytest.param({"webhook": None, "webhook_events_filter": None, "stream": None}, {}, id="nulls"),
        *LEGACY,
    ],
)
async def test_legacy_fields_are_taken(gateway: Stack, more: dict[str, Any], shown: dict[str, Any]) -> None:
    """The official Python client offers `webhook_completed`; Ruby's sends null for what is not given."""
    headers = {"Content-Type": "application/json"}
    reply = await ask(gateway, "POST", "/v1/predictions", data=story(gateway.upstream, **more), headers=headers)
    assert reply.status == 201, reply.text
    assert {name: reply.json[name] for name in ("webhook", "webhook_events_filter") if name in reply.json} == shown


LISTS = ("predictions", "trainings", "files")


@pytest.mark.parametrize("family", LISTS)
async def test_an_empty_cursor_is_the_first_page(gateway: Stack, family: str) -> None:
    """Ruby's client lists so."""
    reply = await ask(gateway, "GET", f"/v1/{family}?cursor=")
    assert reply.status == 200, reply.text
    assert (await ask(gateway, "GET", f"/v1/{family}?cursor")).status == 200


@pytest.mark.parametrize("family", LISTS)
async def test_a_bad_cursor_is_not_found(gateway: Stack, family: str) -> None:
    """As with Replicate's own lists."""
    assert_problem(await ask(gateway, "GET", f"/v1/{family}?cursor=x"), 404, origin=None)


async def test_empty_filters_are_none(gateway: Stack) -> None:
    """A form's empty fields filter nothing."""
    assert (await create(gateway, model="acme/storyteller", prompt="hi")).status == 201
    reply = await ask(gateway, "GET", "/v1/predictions?created_after=&created_before=&source=")
    assert reply.status == 200, reply.text
    assert len(reply.json["results"]) == 1


async def ended_story(stack: Stack) -> Any:
    """Return a prediction with a stream of some events, after its end."""
    made = await create(stack, model="acme/storyteller", prompt="hi")
    return await finished(stack, made.json["id"])


async def test_streams_name_their_charset(gateway: Stack) -> None:
    """Clients that see none decode Latin-1."""
    stream = await ask(gateway, "GET", (await ended_story(gateway))["urls"]["stream"], key=None)
    assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId"])
async def test_a_stream_is_resumed_by_query(gateway: Stack, name: str) -> None:
    """Browser polyfills cannot set a header; no event arrives twice."""
    url = (await ended_story(gateway))["urls"]["stream"]
    whole = (await ask(gateway, "GET", url, key=None)).text
    ids = [line[4:] for line in whole.splitlines() if line.startswith("id: ")]
    rest = (await ask(gateway, "GET", f"{url}?{name}={quote(ids[0])}", key=None)).text
    assert [line[4:] for line in rest.splitlines() if line.startswith("id: ")] == ids[1:]


async def preflight(stack: Stack, names: str) -> Reply:
    """Ask as a browser does before a call with such headers."""
    headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": names}
    return await ask(stack, "OPTIONS", "/v1/predictions", key=None, headers=headers)


def allowed(reply: Reply) -> set[str]:
    """Return the headers that a page may send."""
    return {name.strip().lower() for name in reply.headers["Access-Control-Allow-Headers"].split(",")}


async def test_a_page_may_send_the_headers_of_its_instruments(gateway: Stack) -> None:
    """Pages with Sentry, OpenTelemetry or Datadog add headers to every call."""
    names = "authorization,b3,baggage,content-type,sentry-trace,traceparent,tracestate,x-datadog-trace-id,x-mine"
    assert set(names.split(",")) <= allowed(await preflight(gateway, names))


async def test_what_is_no_header_or_too_much_is_not_echoed(gateway: Stack) -> None:
    """Names only, a bounded number of them, and none that says who asks."""
    odd = await preflight(gateway, "x-mine, bad name, <script>, gateway-tags, x-forwarded-for")
    assert allowed(odd).isdisjoint({"bad name", "<script>", "gateway-tags", "x-forwarded-for"})
    assert "authorization" in allowed(odd)
    many = await preflight(gateway, ",".join(f"x-{number}" for number in range(65)))
    assert "x-0" not in allowed(many)
    long = await preflight(gateway, ",".join("x-" + str(number) * 200 for number in range(1, 9)) + "," + "y" * 3000)
    assert "y" * 3000 not in allowed(long)
    assert "authorization" in allowed(many) & allowed(long)


RECEIVERS = {"allow_http": True, "allow_private_addresses": True}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/hook/ü?q=ü", "/hook/%C3%BC?q=%C3%BC"),
        ("/hook/a b", "/hook/a%20b"),
        ("/hook/%C3%BC/ü", "/hook/%C3%BC/%C3%BC"),
        ('/hook/"x"', "/hook/%22x%22"),
    ],
)
async def test_a_webhooks_address_is_sent_percent_encoded(open_gateway: OpenGateway, path: str, target: str) -> None:
    """As a browser would write it, and as receivers take it."""
    async with raw_server(answer(b"{}")) as receiver, open_gateway(webhooks=RECEIVERS) as stack:
        body = story(stack.upstream, webhook=receiver.url + path, webhook_events_filter=["completed"])
        headers = {"Content-Type": "application/json", "Prefer": "wait"}
        made = await ask(stack, "POST", "/v1/predictions", data=body, headers=headers)
        assert made.status == 201, made.text
        await until(lambda: receiver.heads)
        assert receiver.heads[0].split(b"\r\n")[0] == f"POST {target} HTTP/1.1".encode()


GETS = [route for route in (*PUBLIC, *OWN) if route.method == "GET"]


def head_rows() -> list[Any]:
    """Make a test of each route. `make test` runs one in three."""
    return [pytest.param(route, id=route.name, marks=long_unless(number % 3 == 0)) for number, route in enumerate(GETS)]


@pytest.mark.parametrize("route", head_rows())
async def test_head_works_wherever_get_does(gateway: Stack, route: Route) -> None:
    """The same status and headers, and no body."""
    prefix = "/v1" if route in PUBLIC else ""
    key = None if route.name in OPEN_ROUTES else "alpha"
    got, head = [
        await ask(gateway, method, prefix + fill(route.path), key=key, headers={"Origin": PAGE})
        for method in ("GET", "HEAD")
    ]
    assert head.status == got.status
    assert not head.body
    for name in ("Content-Type", "Access-Control-Allow-Origin"):
        assert head.headers.get(name) == got.headers.get(name)


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        ("gzip", {"gzip"}),
        ("gzip, deflate, br", {"gzip", "deflate"}),
        ("identity", {None}),
        ("br", {None}),
        ("", {None}),
        ("gzip;q=0.5, deflate;q=0.8", {"deflate"}),
        ("gzip;q=0.5, identity;q=0.9", {None}),
        ("GZIP ; Q=0.3", {"gzip"}),
        ("identity;q=0, *;q=0.1", {"gzip", "deflate"}),
        ("gzip;q=2, deflate;q=x", {None}),
        ("gzip;q=0", {None}),
        ("gzip;q=1.0, deflate;q=0", {"gzip"}),
        ("deflate;q=0, gzip;q=0.000", {None}),
        ("*;q=0, gzip;q=0", {None}),
        ("x-gzip;q=0, deflate ; q=0", {None}),
    ],
)
async def test_an_answers_coding_is_one_that_is_accepted(gateway: Stack, accepts: str, coding: set[str | None]) -> None:
    """RFC 9110, 12.5.3: a weight of 0 means not acceptable."""
    reply = await ask(gateway, "GET", "/v1/models", headers={"Accept-Encoding": accepts})
    assert len(reply.body) > 100
    assert reply.headers.get("Content-Encoding") in coding


QUOTED = [
    ('form-data; name="content"; filename="a\\"b.txt"', "quoted pair"),
    ('form-data; name="content"; filename="a\\\\b.txt"', "a backslash"),
    ('form-data; name="content"; filename="a%22b.txt"', "as a browser escapes it"),
    ('form-data; name="content"; filename="ü.txt"', "UTF-8"),
    ("form-data; name=\"content\"; filename*=UTF-8''a%22b.txt", "extended"),
    ('form-data; name="content"; filename="a;b=c.txt"', "a semicolon"),
    ('form-data; name="content"; filename="a%5Cb.txt"', "a percent sign"),
    ('form-data; name="content"; filename="\\"\\\\\\""', "nothing but escapes"),
    ('form-data; name="content"; filename="a;b; c;d.txt";', "semicolons"),
    ('form-data; name="content"; filename="/a.txt"', "a slash"),
    ('form-data; name="content"; filename=plain.txt', "a token"),
    ('form-data; name="content"; filename="x"; size=5', "another parameter"),
    ('form-data;filename="a.txt";name="content"', "the name last"),
    ('form-data; name="content"; FileName="A.txt"', "in capitals"),
    ('form-data; name="content"; filename="e.txt"; filename*=UTF-8\'\'%e2%82%ac.txt', "both forms"),
]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"", 400),
        (b'--frontier\r\nContent-Disposition: form-data; name="filename"\r\n\r\nmine.txt\r\n', 201),
        ((b'--frontier\r\nContent-Disposition: form-data; name="filename"\r\n\r\nm\r\n'
         b'--frontier\r\nContent-Disposition: form-data; name="type"\r\n\r\ntext/css\r\n'), 201),
        ((b'--frontier\r\nContent-Disposition: form-data; name="filename"\r\n\r\nm\r\n'
         b'--frontier\r\nContent-Disposition: form-data; name="else"\r\n\r\nx\r\n'), 201),
    ],
    ids=["no name", "in a part", "and a type", "and another part"],
)  # fmt: skip
async def test_a_files_name_and_type_may_have_parts_of_their_own(gateway: Stack, more: bytes, status: int) -> None:
    """The published description has the fields `filename` and `type`; nothing takes their place."""
    part = b'--frontier\r\nContent-Disposition: form-data; name="content"\r\n\r\nhello\r\n'
    through = await ask(gateway, "POST", "/v1/files", headers={"Content-Type": FORM}, data=form(part, more))
    headers = {"Content-Type": FORM, "Authorization": f"Bearer {gateway.upstream.token}"}
    url = f"{gateway.upstream.base_url}/files"
    direct = await ask(gateway, "POST", url, key=None, headers=headers, data=form(part, more))
    assert (through.status, direct.status) == (status, status), through.text + direct.text
    for field in ("name", "content_type"):
        assert through.json.get(field) == direct.json.get(field)


@pytest.mark.parametrize("disposition", [pytest.param(disposition, id=what) for disposition, what in QUOTED])
async def test_a_files_name_arrives_as_it_was_sent(gateway: Stack, disposition: str) -> None:
    """Through the gateway it has the name that it has when it is uploaded to upstream itself."""
    part = f"--frontier\r\nContent-Disposition: {disposition}\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    sent: dict[str, Any] = {"headers": {"Content-Type": FORM}, "data": form(part.encode())}
    through = await ask(gateway, "POST", "/v1/files", **sent)
    token = f"Bearer {gateway.upstream.token}"
    url = f"{gateway.upstream.base_url}/files"
    direct = await ask(
        gateway, "POST", url, key=None, **(sent | {"headers": sent["headers"] | {"Authorization": token}})
    )
    assert (through.status, direct.status) == (201, 201), through.text + direct.text
    assert through.json["name"] == direct.json["name"]
