"""`/admin/keys`, `/gateway/keys` and `/admin/audit`: keys with limits, for operators and team leads."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.domain.scopes import Scope
from tests.support.dashboard import sign_in, visitor
from tests.support.http_calls import PAGE, Reply, ask, assert_problem
from tests.support.polling import attempts
from tests.support.samples import create
from tests.support.secret_scanner import SecretScanner
from tests.support.stack import TEAM_SCOPES, OpenGateway, Stack
from tests.support.system_clocks import AdvancingClock

LEAD = {"name": "lead", "scopes": ["read", "predict", "keys"], "models": ["acme/*"], "requests_per_minute": 600}


REFUSED: list[tuple[str, str, Any, int, str | None]] = [
    ("POST", "keys", {"team": "alpha", "scopes": ["account"]}, 422, "scopes"),
    ("POST", "keys", {"team": "gamma"}, 422, "team"),
    ("POST", "keys", {"team": "alpha", "limits": {"requests_per_minute": 0}}, 422, "limits.requests_per_minute"),
    ("POST", "keys", {"team": "alpha", "secret": "mine"}, 422, ""),
    ("POST", "keys", [], 422, ""),
    ("PATCH", "keys/zzzzzzzzzzzz", {"name": "x"}, 404, None),
    ("DELETE", "keys/zzzzzzzzzzzz", None, 404, None),
    ("DELETE", "keys/alpha%2Flead", None, 409, None),
    ("POST", "keys/zzzzzzzzzzzz/rotate", {}, 404, None),
    ("POST", "keys/zzzzzzzzzzzz/rotate", {"overlap_seconds": -1}, 422, "overlap_seconds"),
    ("GET", "keys?cursor=nonsense", None, 422, "cursor"),
    ("GET", "keys?limit=1001", None, 422, "limit"),
    ("GET", "keys?teams=alpha", None, 422, "teams"),
    ("GET", "keys?team=", None, 422, "team"),
    ("GET", "audit?since=yesterday", None, 422, "since"),
    ("GET", "audit?cursor=WzEuMCwgIngiXQ==", None, 422, "cursor"),
]
BEYOND: list[tuple[Any, str]] = [
    ({"scopes": ["files"]}, "scopes"),
    ({"scopes": ["admin"]}, "scopes"),
    ({"scopes": None}, "scopes"),
    ({"models": ["*"]}, "models"),
    ({"models": None}, "models"),
    ({"limits": {"requests_per_minute": 601}}, "limits.requests_per_minute"),
    ({"limits": None}, "limits.requests_per_minute"),
    ({"team": "beta"}, "team"),
]


@pytest.fixture
async def stack(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """Two teams with a lead each."""
    teams = {name: {"scopes": TEAM_SCOPES, "keys": [dict(LEAD)], "max_wait_seconds": 0} for name in ("alpha", "beta")}
    async with open_gateway(teams=teams) as made:
        yield made


async def admin(stack: Stack, method: str, path: str, body: Any = None, **more: Any) -> Reply:
    return await ask(stack, method, f"{stack.ops_url}/admin/{path}", key=None, json=body, **more)


def refused(reply: Reply, status: int) -> dict[str, Any]:
    """Fail unless the response is a problem document of the ops listener."""
    assert (reply.status, reply.headers["Content-Type"].partition(";")[0]) == (status, "application/problem+json")
    assert "Traceback" not in reply.text
    problem: dict[str, Any] = reply.json
    return problem


async def lead(stack: Stack, method: str, path: str = "", body: Any = None, *, key: str = "alpha.lead") -> Reply:
    return await ask(stack, method, f"/gateway/keys{path}", key=key, json=body)


async def issue(stack: Stack, scanner: SecretScanner | None = None, team: str = "alpha", **body: Any) -> Any:
    made = await admin(stack, "POST", "keys", {"team": team} | body)
    assert made.status == 201, made.text
    return made.json


async def test_operators_manage_keys(stack: Stack):
    """Create, list, change, rotate, revoke. The key itself is in two answers, and in no list."""
    made = await issue(stack, name="ci", scopes=["read", "predict"], limits={"requests_per_minute": 60})
    assert made["key"].startswith(f"rgw_{made['id']}_")
    assert (await ask(stack, "GET", "/v1/models", key=made["key"])).status == 200
    changed = await admin(stack, "PATCH", f"keys/{made['id']}", {"limits": {"budget_usd_per_day": 2.5}})
    assert changed.json["limits"] == {"requests_per_minute": 60, "budget_usd_per_day": 2.5}
    rotated = await admin(stack, "POST", f"keys/{made['id']}/rotate", {"overlap_seconds": 0})
    assert rotated.status == 201
    new = rotated.json
    assert (new["name"], new["limits"], new["last_four"]) == ("ci", changed.json["limits"], new["key"][-4:])
    assert (await ask(stack, "GET", "/v1/models", key=made["key"])).status == 401
    assert (await ask(stack, "GET", "/v1/models", key=new["key"])).status == 200
    for _ in range(2):
        revoked = await admin(stack, "DELETE", f"keys/{new['id']}")
        assert (revoked.status, revoked.json["state"]) == (200, "revoked")
    assert (await ask(stack, "GET", "/v1/models", key=new["key"])).status == 401
    listed = await admin(stack, "GET", "keys?team=alpha&limit=1000")
    states = {row["id"]: row["state"] for row in listed.json["results"]}
    assert (states[made["id"]], states[new["id"]], states["alpha/lead"]) == ("expired", "revoked", "valid")
    assert {row["team"] for row in listed.json["results"]} == {"alpha"}
    assert "no-store" in listed.headers["Cache-Control"]
    for reply in (changed, revoked, listed):
        assert made["key"] not in reply.text
        assert "key" not in reply.json
        assert "sha256" not in reply.text


async def test_list_is_read_by_page(stack: Stack):
    made = [(await issue(stack))["id"] for _ in range(3)]
    seen, url = [], "keys?team=alpha&limit=2"
    while url is not None:
        page = (await admin(stack, "GET", url)).json
        seen += [row["id"] for row in page["results"]]
        url = page["next"] and page["next"].removeprefix(f"{stack.ops_url}/admin/")
    assert seen[:3] == made[::-1]
    assert sorted(seen[3:]) == ["alpha/default", "alpha/lead"]


async def test_refusals_name_the_field(stack: Stack):
    for method, path, body, status, field in REFUSED:
        problem = refused(await admin(stack, method, path, body), status)
        assert field is None or [each["field"] for each in problem["invalid_fields"]] == [field], (path, body)


async def test_other_sites_cannot_post_to_a_listener_without_token(stack: Stack):
    """A page sends forms and plain text without asking first, but not JSON."""
    for content_type in ("text/plain", "application/x-www-form-urlencoded", None):
        headers = {} if content_type is None else {"Content-Type": content_type}
        for path in ("keys", "keys/zzzzzzzzzzzz/rotate"):
            reply = await admin(stack, "POST", path, headers=headers, data=b'{"team":"alpha"}')
            assert reply.status == 415
    assert (await admin(stack, "GET", "keys?team=alpha")).json["next"] is None


async def test_limits_of_an_issued_key_are_enforced(stack: Stack):
    """As those of a key of the config: requests, concurrency and budget. A change counts with the next request."""
    made = await issue(stack, limits={"concurrent_predictions": 1})
    key, path = made["key"], f"keys/{made['id']}"
    assert (await create(stack, key=key)).status == 201
    refused = assert_problem(await create(stack, key=key), 429, origin=None)
    assert "key" in refused["detail"]
    shown = (await ask(stack, "GET", "/gateway/limits", key=key)).json["limits"]
    assert [(each["name"], each["of"]) for each in shown if each["of"] == "key"] == [("concurrent_predictions", "key")]
    await admin(stack, "PATCH", path, {"limits": {"concurrent_predictions": None, "budget_usd_per_day": 0.000001}})
    refused = assert_problem(await create(stack, key=key), 402, origin=None)
    assert "the whole budget of your key: $0.000001 per day" in refused["detail"]
    await admin(stack, "PATCH", path, {"limits": {"budget_usd_per_day": None, "requests_per_minute": 2, "burst": 2}})
    statuses = [(await ask(stack, "GET", "/v1/models", key=key)).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    # Nobody else is limited.
    assert (await create(stack)).status == 201


async def test_requests_per_minute_count_for_streams_too(stack: Stack):
    """A stream is opened without a key, and counts for the one that made the prediction."""
    made = await issue(stack, limits={"requests_per_minute": 2, "burst": 2})
    urls = (await create(stack, key=made["key"], model="acme/storyteller")).json["urls"]
    statuses = [(await ask(stack, "GET", urls["stream"], key=None)).status for _ in range(2)]
    assert statuses == [200, 429]


async def test_last_use_is_shown(open_gateway: OpenGateway):
    """Within a minute, for keys of the config too."""
    clock = AdvancingClock()
    async with open_gateway(clock=clock) as stack:
        made = await issue(stack)
        assert made["last_used_at"] is None
        for key in (made["key"], "alpha"):
            assert (await ask(stack, "GET", "/v1/account", key=key)).status == 200
        async for _ in attempts():
            clock.advance(31)
            rows = {
                row["id"]: row["last_used_at"] for row in (await admin(stack, "GET", "keys?team=alpha")).json["results"]
            }
            if rows[made["id"]] and rows["alpha/default"]:
                break


async def test_lead_manages_the_keys_of_its_own_team(stack: Stack):
    made = (await lead(stack, "POST", "", {"name": "app", "limits": {"budget_usd_per_day": 1}})).json
    assert (made["team"], made["scopes"], made["models"]) == ("alpha", ["read", "predict"], ["acme/*"])
    assert made["limits"] == {"requests_per_minute": 600, "budget_usd_per_day": 1}
    run = "/v1/models/acme/official-storyteller/predictions"
    assert (await ask(stack, "POST", run, key=made["key"], json={"input": {"prompt": "hi"}})).status == 201
    listed = (await lead(stack, "GET")).json["results"]
    assert {row["team"] for row in listed} == {"alpha"}
    assert (await lead(stack, "PATCH", f"/{made['id']}", {"scopes": ["read"]})).json["scopes"] == ["read"]
    assert (await ask(stack, "POST", run, key=made["key"], json={"input": {}})).status == 403
    new = (await lead(stack, "POST", f"/{made['id']}/rotate")).json
    assert (await lead(stack, "DELETE", f"/{new['id']}")).json["state"] == "revoked"
    actors = {each["actor"] for each in (await admin(stack, "GET", "audit?team=alpha")).json["results"]}
    assert actors == {"key:alpha/lead"}


async def test_keys_that_a_revoked_lead_has_created_stay_valid_and_are_found(stack: Stack):
    """By their creator, on both listeners; a lead finds those of its team only."""
    owner = await issue(stack, scopes=["read", "predict", "keys"])
    body = {"name": "app", "scopes": ["read"]}
    made = (await ask(stack, "POST", "/gateway/keys", key=owner["key"], json=body)).json
    assert made["created_by"] == f"key:{owner['id']}"
    revoked = (await admin(stack, "DELETE", f"keys/{owner['id']}")).json
    assert (revoked["state"], revoked["valid_keys_created"]) == ("revoked", 1)
    query = f"?created_by={made['created_by']}"
    for reply in (await admin(stack, "GET", f"keys{query}"), await lead(stack, "GET", query)):
        assert [(row["id"], row["state"]) for row in reply.json["results"]] == [(made["id"], "valid")]
    assert (await ask(stack, "GET", f"/gateway/keys{query}", key="beta")).json["results"] == []
    assert (await ask(stack, "GET", "/v1/models", key=made["key"])).status == 200


async def test_lead_grants_no_more_than_it_has(stack: Stack):
    for body, field in BEYOND:
        problem = assert_problem(await lead(stack, "POST", "", body), 422, origin=None)
        assert [each["field"] for each in problem["invalid_fields"]] == [field]


async def test_lead_of_one_team_sees_and_changes_nothing_of_another(stack: Stack):
    """The answers about another team's key are those about one that does not exist, and nothing is recorded."""
    theirs = await issue(stack, team="beta", scopes=["read"], models=["acme/*"], limits={"requests_per_minute": 1})
    calls = (("PATCH", "", {"name": "x"}), ("DELETE", "", None), ("POST", "/rotate", {"overlap_seconds": 0}))
    for method, path, body in calls:
        foreign = await lead(stack, method, f"/{theirs['id']}{path}", body)
        unknown = await lead(stack, method, f"/{'z' * 12}{path}", body)
        assert (foreign.status, foreign.body) == (unknown.status, unknown.body)
        assert foreign.status == 404
    assert theirs["id"] not in (await lead(stack, "GET")).text
    for path in ("?team=beta", "?limit=0", "?cursor="):
        assert_problem(await lead(stack, "GET", path), 422, origin=None)
    assert (await ask(stack, "GET", "/v1/models", key=theirs["key"])).status == 200
    recorded = (await admin(stack, "GET", "audit?team=beta")).json["results"]
    assert [(each["action"], each["actor"]) for each in recorded] == [("key.created", "api")]


async def test_lead_does_not_touch_keys_with_more_rights(stack: Stack):
    wider = await issue(stack)
    for method, path, body in (("PATCH", "", {"name": "x"}), ("DELETE", "", None), ("POST", "/rotate", None)):
        assert_problem(await lead(stack, method, f"/{wider['id']}{path}", body), 403, origin=None)
    assert (await ask(stack, "GET", "/v1/models", key=wider["key"])).status == 200


async def test_key_of_a_page_manages_no_keys(stack: Stack):
    """Even if it was given the scope."""
    made = await issue(stack, scopes=[str(Scope.KEYS), "read"], origins=[PAGE])
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", f"/{'z' * 12}")):
        reply = await ask(stack, method, f"/gateway/keys{path}", key=made["key"], headers={"Origin": PAGE}, json=None)
        assert_problem(reply, 403, origin=PAGE)


async def test_audit_log_is_read_by_page_with_filters(stack: Stack):
    made = [await issue(stack, name=f"k{n}") for n in range(3)]
    await admin(stack, "DELETE", f"keys/{made[0]['id']}")
    await issue(stack, team="beta")
    seen, url = [], "audit?team=alpha&limit=3"
    while url is not None:
        page = (await admin(stack, "GET", url)).json
        seen += page["results"]
        url = page["next"] and page["next"].removeprefix(f"{stack.ops_url}/admin/")
    assert [each["action"] for each in seen] == ["key.revoked", "key.created", "key.created", "key.created"]
    assert seen[0].keys() == {"id", "at", "actor", "action", "subject", "team", "before", "after"}
    of_one = (await admin(stack, "GET", f"audit?subject={made[0]['id']}&actor=api&since=2020-01-01")).json["results"]
    assert [each["action"] for each in of_one] == ["key.revoked", "key.created"]
    as_csv = await admin(stack, "GET", "audit?team=alpha&limit=3", headers={"Accept": "text/csv"})
    assert [line.split(",")[3] for line in as_csv.text.splitlines()[1:]] == [each["action"] for each in seen[:3]]
    assert 'rel="next"' in as_csv.headers["Link"]
    assert (await admin(stack, "GET", "audit?action=cache.purged")).json == {"results": [], "next": None}


async def test_no_entry_has_a_secret(stack: Stack, secret_scanner: SecretScanner):
    """Of all changes that the gateway makes, with every secret that is known."""
    made = await issue(stack, name="ci")
    rotated = (await admin(stack, "POST", f"keys/{made['id']}/rotate", {})).json
    await admin(stack, "DELETE", f"keys/{rotated['id']}")
    shown = (await admin(stack, "GET", "audit?limit=1000")).text
    for secret in (made["key"], rotated["key"], *stack.keys.values()):
        assert secret not in shown
        assert secret.rpartition("_")[2] not in shown


async def test_ops_token_is_needed_where_there_is_one(open_gateway: OpenGateway):
    async with open_gateway(ops={"token_env": "KEY_ALPHA"}) as stack:
        for method, path in (("GET", "keys"), ("POST", "keys"), ("GET", "audit"), ("DELETE", f"keys/{'z' * 12}")):
            refused(await admin(stack, method, path, {} if method == "POST" else None), 401)
        headers = {"Authorization": f"Bearer {stack.keys['alpha']}"}
        assert (await admin(stack, "GET", "audit", headers=headers)).status == 200


async def test_changes_of_a_signed_in_operator_are_told_apart(open_gateway: OpenGateway):
    """A script has the token, a person a session of the console."""
    async with open_gateway(ops={"token_env": "KEY_ALPHA"}) as stack, visitor(stack) as session:
        assert (await sign_in(session, stack.keys["alpha"])).status == 303
        async with session.post("/admin/keys", json={"team": "beta"}) as made:
            assert made.status == 201
        headers = {"Authorization": f"Bearer {stack.keys['alpha']}"}
        assert (await admin(stack, "POST", "keys", {"team": "beta"}, headers=headers)).status == 201
        listed = (await admin(stack, "GET", "audit?action=key.created", headers=headers)).json["results"]
        assert [each["actor"] for each in listed] == ["api", "console:operators"]


async def test_number_of_issued_keys_is_bounded(open_gateway: OpenGateway):
    async with open_gateway(teams={"alpha": {"max_issued_keys": 1}}) as stack:
        made = await issue(stack)
        problem = refused(await admin(stack, "POST", "keys", {"team": "alpha"}), 409)
        assert "1 valid keys" in problem["detail"]
        await admin(stack, "DELETE", f"keys/{made['id']}")
        await issue(stack)
