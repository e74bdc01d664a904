"""Tenancy: what is a team's is nobody else's, and nobody can tell that it is there.

See docs/architecture.md, Invariants 2.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.domain import times
from gateway.domain.cursors import Cursor, encode
from gateway.domain.scopes import Scope
from gateway.http.route import OPEN_ROUTES, Route
from gateway.http.routes import OWN, PREFIXES, PUBLIC
from tests.support.http_calls import Reply, ask, assert_problem
from tests.support.samples import (
    HEX,
    UNKNOWN_FILE,
    UNKNOWN_ID,
    UNKNOWN_TICKET,
    create,
    fill,
    finished,
    request_for,
    upload,
)
from tests.support.stack import TEAM_SCOPES, OpenGateway, Stack
from tests.support.upstream import version_of

CLOSED_ROUTES = [route for route in (*PUBLIC, *OWN) if route.name not in OPEN_ROUTES]
WITH_ID = [route for route in PUBLIC if "{id:" in route.path or "{file_id:" in route.path]


@dataclass(frozen=True)
class Works:
    """What team alpha has."""

    prediction: str
    training: str
    file: str
    ticket: str
    file_ticket: str


async def train(stack: Stack, key: str = "alpha") -> Reply:
    version = version_of(stack.upstream, "acme/storyteller")
    body = {
        "destination": "acme/painter",
        "input": {"train_data": "https://example.com/data.zip", "num_train_epochs": 1000},
    }
    return await ask(stack, "POST", f"/v1/models/acme/storyteller/versions/{version}/trainings", key=key, json=body)


async def make_works(stack: Stack, key: str = "alpha") -> Works:
    prediction, training, file, text, frames = await asyncio.gather(
        create(stack, key=key),
        train(stack, key),
        ask(stack, "POST", "/v1/files", key=key, **upload()),
        create(stack, key=key, model="acme/storyteller", prompt="hi", duration=60),
        create(stack, key=key, model="acme/frames", duration=60),
    )
    assert (prediction.status, training.status, file.status) == (201, 201, 201)
    return Works(
        prediction.json["id"],
        training.json["id"],
        file.json["id"],
        text.json["urls"]["stream"].rpartition("/")[2],
        frames.json["urls"]["stream"].rpartition("/")[2],
    )


@pytest.fixture
async def works(gateway: Stack) -> Works:
    """A prediction, a training, a file and two streams of alpha's."""
    made = await make_works(gateway)
    gateway.upstream.requests.clear()
    return made


def of(route: Route, works: Works) -> dict[str, str]:
    mine = works.training if route.name.startswith("trainings") else works.prediction
    return {"id": mine, "file_id": works.file}


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: prefix or "bare")
@pytest.mark.parametrize("route", WITH_ID, ids=lambda route: f"{route.method} {route.name}")
async def test_foreign_and_unknown_ids_are_the_same_404(gateway: Stack, works: Works, route: Route, prefix: str):
    """Team beta cannot learn that alpha's prediction exists, however it asks."""
    gateway.upstream.requests.clear()
    foreign = await ask(gateway, route.method, prefix + fill(route.path, **of(route, works)), key="beta")
    unknown = await ask(gateway, route.method, prefix + fill(route.path), key="beta")
    assert foreign.settled == unknown.settled
    assert_problem(foreign, 404, origin=None)
    for seen in gateway.upstream.requests:
        assert seen.operation in ("predictions.get", "trainings.get"), "beyond the tracker nothing goes upstream"
    mine = await ask(gateway, "GET", prefix + f"/predictions/{works.prediction}")
    assert mine.status == 200
    assert mine.json["status"] != "canceled"
    assert (await ask(gateway, "GET", f"{prefix}/files/{works.file}")).status == 200


async def test_training_is_served_under_both_routes_to_its_owner_only(gateway: Stack, works: Works):
    """A training's create response links to /predictions, so that must work; a prediction is no training."""
    for family in ("predictions", "trainings"):
        assert (await ask(gateway, "GET", f"/v1/{family}/{works.training}")).json["id"] == works.training
        foreign = await ask(gateway, "GET", f"/v1/{family}/{works.training}", key="beta")
        unknown = await ask(gateway, "GET", f"/v1/{family}/{UNKNOWN_ID}", key="beta")
        assert foreign.settled == unknown.settled
    not_one = await ask(gateway, "GET", f"/v1/trainings/{works.prediction}")
    unknown = await ask(gateway, "GET", f"/v1/trainings/{UNKNOWN_ID}")
    assert not_one.settled == unknown.settled
    assert (await ask(gateway, "POST", f"/v1/trainings/{works.prediction}/cancel")).status == 404
    assert (await ask(gateway, "POST", f"/v1/predictions/{works.training}/cancel")).json["status"] == "canceled"


async def test_upstream_id_unknown_to_the_gateway_is_404(gateway: Stack):
    """What was created with the account's token elsewhere is visible to no team."""
    made = gateway.upstream.world.registry.models["acme/slow"]
    assert made.latest is not None
    other = gateway.upstream.world.create(
        gateway.upstream.world.accounts.authenticate(f"Bearer {gateway.upstream.token}"),
        made,
        made.latest,
        {"input": {"prompt": "x", "duration": 600, "steps": 1}},
    )
    for method, ending in (("GET", ""), ("POST", "/cancel")):
        reply = await ask(gateway, method, f"/v1/predictions/{other.id}{ending}")
        unknown = await ask(gateway, method, f"/v1/predictions/{UNKNOWN_ID}{ending}")
        assert reply.settled == unknown.settled
    assert not len(gateway.upstream.requests)
    seen = await ask(gateway, "GET", f"/v1/predictions/{other.id}", key="operator")
    assert seen.json["id"] == other.id
    assert seen.json["urls"]["get"] == f"{gateway.base_url}/predictions/{other.id}"
    assert other.id in (await ask(gateway, "GET", "/v1/predictions", key="operator")).text
    assert (await ask(gateway, "POST", f"/v1/predictions/{other.id}/cancel", key="operator")).status == 200


async def test_lists_are_disjoint(gateway: Stack, works: Works):
    """Each team lists its own predictions, all of them, and nothing else."""
    others = await make_works(gateway, "beta")
    gateway.upstream.requests.clear()
    for key, own, foreign in (("alpha", works, others), ("beta", others, works)):
        for path, mine, not_mine in (
            ("predictions", own.prediction, foreign.prediction),
            ("trainings", own.training, foreign.training),
            ("files", own.file, foreign.file),
        ):
            listed = [each["id"] for each in (await ask(gateway, "GET", f"/v1/{path}", key=key)).json["results"]]
            assert mine in listed
            assert not_mine not in listed
            assert len(listed) == len(set(listed)) == (3 if path == "predictions" else 1)
    assert not gateway.upstream.requests.count("*.list")
    everything = (await ask(gateway, "GET", "/v1/predictions", key="operator")).text
    assert works.prediction in everything
    assert others.prediction in everything


async def test_foreign_cursor_shows_only_the_callers_own(gateway: Stack):
    """A cursor says where a page begins, not whose it is."""
    for key in ("alpha", "beta"):
        for _ in range(3):
            await create(gateway, key=key)
    first = (await ask(gateway, "GET", "/v1/predictions")).json["results"]
    cursor = encode(Cursor(times.parse(first[0]["created_at"]) + 100, first[0]["id"]))
    for key in ("alpha", "beta"):
        page = (await ask(gateway, "GET", f"/v1/predictions?cursor={cursor}", key=key)).json["results"]
        for item in page:
            assert (await ask(gateway, "GET", f"/v1/predictions/{item['id']}", key=key)).status == 200
        assert len(page) == 3


@pytest.mark.parametrize("scheme", ["streams", "files"])
async def test_ticket_cannot_be_guessed(gateway: Stack, works: Works, scheme: str):
    """A ticket with one letter changed, of another form, or derived from an id is a 404 like an unknown one."""
    ticket = works.ticket if scheme == "streams" else works.file_ticket
    unknown = await ask(
        gateway, "GET", f"/v1/{scheme}/{'' if scheme == 'streams' else 'rgws-'}{UNKNOWN_TICKET}", key=None
    )
    assert_problem(unknown, 404, origin=None)
    flipped = ticket[:-1] + ("a" if ticket[-1] != "a" else "b")
    for wrong in (flipped, "rgws-" + flipped[-52:], ticket.upper(), ticket[:-1], works.prediction.ljust(52, "a")):
        reply = await ask(gateway, "GET", f"/v1/{scheme}/{wrong}", key=None)
        assert reply.status in (401, 404)
        if reply.status == 404:
            assert reply.settled == unknown.settled
    assert not gateway.upstream.requests.count(origin="delivery")


SPELLINGS = [
    "{gateway}/v1/files/{id}",
    "{gateway}/files/{id}",
    "{gateway}/v1/v1/files/{id}",
    "{upstream}/files/{id}",
    "{gateway}/v1/files/{id}/",
    "{gateway}/v1/files/{id}=",
    "{gateway}/v1/files/{id}?x=y",
    "{upstream}/files/{id}?x=y",
    "{upstream}/files/{id}#x",
    "{upstream}//files/{id}",
    "{upstream}/./files/{id}",
    "{upstream}/../v1/files/{id}",
    "{upstream}/f%69les/{id}",
    "{upstream}/files/%{first:x}{rest}",
    "{upstream_user}/files/{id}",
    "{UPSTREAM}/files/{id}",
    " {upstream}/files/{id}",
    "{upstream}/files/{id}\\n",
]


async def wrapped(gateway: Stack, link: str, key: str) -> Reply:
    given: Any = {"prompt": "hi", "extra": [{"deep": ["x", {"image": link}]}]}
    body = {"version": version_of(gateway.upstream, "acme/storyteller"), "input": given}
    return await ask(gateway, "POST", "/v1/predictions", key=key, json=body)


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_foreign_file_in_an_input_is_refused_with_its_path(gateway: Stack, works: Works, spelling: str):
    """Upstream would read alpha's file with the account's rights, for beta; however the link is spelled."""
    base = gateway.upstream.base_url
    link = spelling.replace("\\n", "\n").format(
        gateway=gateway.origin,
        upstream=base,
        UPSTREAM=base.replace("http://", "HTTP://"),
        upstream_user=base.replace("://", "://user:pw@"),
        id=works.file,
        first=ord(works.file[0]),
        rest=works.file[1:],
    )
    reply = await wrapped(gateway, link, "beta")
    problem = assert_problem(reply, 422, origin=None)
    assert [field["field"] for field in problem["invalid_fields"]] == ["input.extra[0].deep[1].image"]
    assert not gateway.upstream.requests.count("*predictions.create")
    unknown = await wrapped(gateway, link.replace(works.file[1:], UNKNOWN_FILE[1:]), "beta")
    assert unknown.settled == reply.settled


async def test_foreign_file_in_json_escapes_is_refused(gateway: Stack, works: Works):
    """JSON has many spellings of one link."""
    link = f"{gateway.upstream.base_url}/files/{works.file}"
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in link)
    slashed = link.replace("/", "\\/")
    for text in (spelled, slashed):
        version = version_of(gateway.upstream, "acme/storyteller")
        data = f'{{"version":"{version}","input":{{"prompt":"hi","image":"{text}"}}}}'
        headers = {"Content-Type": "application/json"}
        reply = await ask(gateway, "POST", "/v1/predictions", key="beta", data=data.encode(), headers=headers)
        assert_problem(reply, 422, origin=None)
    assert not gateway.upstream.requests.count("*predictions.create")


async def test_deleted_or_expired_file_is_refused_as_unknown(gateway: Stack, works: Works):
    """A dead link is reported before it costs a run."""
    assert (await ask(gateway, "DELETE", f"/v1/files/{works.file}")).status == 204
    for link in (f"{gateway.base_url}/files/{works.file}", f"{gateway.upstream.base_url}/files/{works.file}"):
        assert_problem(await wrapped(gateway, link, "alpha"), 422, origin=None)
    gone = await ask(gateway, "GET", f"/v1/files/{works.file}")
    assert gone.settled == (await ask(gateway, "GET", f"/v1/files/{UNKNOWN_FILE}")).settled


async def test_account_and_webhook_secret_are_the_teams_own(gateway: Stack):
    """No team sees the account's name or another team's secret."""
    accounts = {key: (await ask(gateway, "GET", "/v1/account", key=key)).json for key in ("alpha", "beta")}
    assert accounts["alpha"]["username"] == "alpha"
    assert accounts["beta"]["username"] == "beta"
    assert accounts["alpha"]["type"] == "organization"
    secrets = {}
    for key in ("alpha", "beta", "operator"):
        first = (await ask(gateway, "GET", "/v1/webhooks/default/secret", key=key)).json["key"]
        assert first == (await ask(gateway, "GET", "/v1/webhooks/default/secret", key=key)).json["key"]
        assert first.startswith("whsec_")
        secrets[key] = first
    assert len(set(secrets.values())) == 3
    assert not len(gateway.upstream.requests)
    seen = (await ask(gateway, "GET", "/v1/account", key="operator")).json
    assert seen["username"] not in ("alpha", "beta", "operator")


async def test_deployments_follow_the_allow_list(open_gateway: OpenGateway):
    """A team that may run one deployment sees that one, and cannot read, change or run the other."""
    limited = {"beta": {"scopes": TEAM_SCOPES, "models": ["acme/story-service", "acme/storyteller"]}}
    async with open_gateway(teams=limited) as stack:
        listed = (await ask(stack, "GET", "/v1/deployments", key="beta")).json["results"]
        assert [each["name"] for each in listed] == ["story-service"]
        assert len((await ask(stack, "GET", "/v1/deployments")).json["results"]) == 2
        stack.upstream.requests.clear()
        path = "/v1/deployments/acme/paint-service"
        unknown = await ask(stack, "GET", "/v1/deployments/acme/nothing", key="beta")
        for method, body in (("GET", None), ("PATCH", {"min_instances": 1}), ("DELETE", None)):
            assert (await ask(stack, method, path, key="beta", json=body)).settled == unknown.settled
        refused = await ask(stack, "POST", f"{path}/predictions", key="beta", json={"input": {"prompt": "x"}})
        assert_problem(refused, 403, origin=None)
        made = {"owner": "acme", "name": "paint-service", "model": "acme/painter", "version": HEX}
        made |= {"hardware": "cpu", "min_instances": 0, "max_instances": 1}
        assert_problem(await ask(stack, "POST", "/v1/deployments", key="beta", json=made), 403, origin=None)
        made["name"] = "story-service"
        assert_problem(await ask(stack, "POST", "/v1/deployments", key="beta", json=made), 403, origin=None)
        assert not len(stack.upstream.requests)
        allowed = await ask(stack, "GET", "/v1/deployments/acme/story-service", key="beta")
        assert allowed.json["name"] == "story-service"


async def test_disallowed_target_is_refused_in_every_form(open_gateway: OpenGateway):
    """A version belongs to one model; an allowed name in front of it proves nothing."""
    limited = {"beta": {"scopes": TEAM_SCOPES, "models": ["acme/storyteller", "acme/official-storyteller"]}}
    async with open_gateway(teams=limited) as stack:
        allowed, other = version_of(stack.upstream, "acme/storyteller"), version_of(stack.upstream, "acme/painter")
        for version in (other, f"acme/painter:{other}", f"acme/storyteller:{other}", "acme/painter", HEX):
            body = {"version": version, "input": {"prompt": "hi"}}
            assert_problem(await ask(stack, "POST", "/v1/predictions", key="beta", json=body), 403, origin=None)
        refused = await ask(
            stack, "POST", "/v1/models/meta/llama-2-70b-chat/predictions", key="beta", json={"input": {"prompt": "hi"}}
        )
        assert_problem(refused, 403, origin=None)
        assert not stack.upstream.requests.count("*create")
        for version in (allowed, f"acme/storyteller:{allowed}", "acme/official-storyteller"):
            body = {"version": version, "input": {"prompt": "hi"}}
            assert (await ask(stack, "POST", "/v1/predictions", key="beta", json=body)).status == 201


def keys_by_scope() -> list[dict[str, Any]]:
    rest = {scope: [each for each in TEAM_SCOPES if each != scope] for scope in TEAM_SCOPES}
    return [{"name": f"only-{scope}", "scopes": [scope]} for scope in TEAM_SCOPES] + [
        {"name": f"no-{scope}", "scopes": scopes} for scope, scopes in rest.items()
    ]


@pytest.mark.parametrize("route", CLOSED_ROUTES, ids=lambda route: f"{route.method} {route.name}")
async def test_route_needs_exactly_its_scope(open_gateway: OpenGateway, route: Route):
    """A key may do what it was given for, and the refusal names the missing scope."""
    async with open_gateway(teams={"alpha": {"keys": keys_by_scope()}}) as stack:
        works = await make_works(stack)
        stack.upstream.requests.clear()
        method, path, body = request_for(route, stack.upstream, **of(route, works))
        path = path if route in OWN else "/v1" + path
        refused = await ask(stack, method, path, key=f"alpha.no-{route.scope}", **body)
        assert route.scope in assert_problem(refused, 403, origin=None)["detail"]
        assert_problem(await ask(stack, method, path, key=None, **body), 401, origin=None)
        before = [seen for seen in stack.upstream.requests if not seen.operation.endswith(("s.get", "streams.get"))]
        assert not before
        opened = await ask(stack, method, path, key=f"alpha.only-{route.scope}", **body)
        # These reach upstream, which has its own reasons to refuse what the sample asks.
        excused = ("models.delete", "models.versions.delete", "models.update", "deployments.delete", "files.download")
        excused += ("gateway.keys.change", "gateway.keys.revoke", "gateway.keys.rotate")  # there is no such key
        assert opened.status < 400 or (route.name in excused and "scope" not in opened.text and opened.status < 500)


def test_only_the_open_routes_need_no_key():
    """Probes and the description; streams, copies and upstream's webhooks, whose URL is the permission."""
    assert {route.name for route in (*PUBLIC, *OWN)} & OPEN_ROUTES == {
        "healthz",
        "openapi",
        "outputs.read",
        "readyz",
        "streams.check",
        "streams.read",
        "streams.read_files",
        "upstream.webhooks",
    }
    assert all(isinstance(route.scope, Scope) for route in PUBLIC)


async def test_account_scope_sees_every_teams_predictions(gateway: Stack, works: Works):
    """For operators and migrations: alpha's prediction, by its id, as alpha sees it except for the links' base."""
    for path in (f"/v1/predictions/{works.prediction}", f"/v1/trainings/{works.training}", f"/v1/files/{works.file}"):
        reply = await ask(gateway, "GET", path, key="operator")
        assert reply.status == 200
        assert reply.json["id"] == path.rpartition("/")[2]
    cancelled = await ask(gateway, "POST", f"/v1/predictions/{works.prediction}/cancel", key="operator")
    assert cancelled.json["status"] == "canceled"
    assert (await finished(gateway, works.prediction))["status"] == "canceled"
