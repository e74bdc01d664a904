"""The scope `account`: the whole account as upstream sees it, on every route with an id or a list."""

import pytest

from tests.support.http_calls import Reply, ask
from tests.support.samples import FORM, content, create, form
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of


async def directly(stack: Stack, method: str, path: str, **more) -> Reply:
    """Ask upstream itself."""
    headers = {"Authorization": f"Bearer {stack.upstream.token}"} | more.pop("headers", {})
    return await ask(stack, method, stack.upstream.base_url + path, key=None, headers=headers, **more)


async def file_of_the_account(stack: Stack) -> str:
    """Upload a file past the gateway."""
    made = await directly(stack, "POST", "/files", data=form(content()), headers={"Content-Type": FORM})
    assert made.status == 201
    return made.json["id"]


async def test_files_of_the_account_are_listed_shown_downloaded_and_deleted(gateway: Stack):
    """Files that the gateway has no record of, with links that lead back to it."""
    file_id = await file_of_the_account(gateway)
    mine = (await ask(gateway, "POST", "/v1/files", data=form(content("b.txt")), headers={"Content-Type": FORM})).json
    listed = (await ask(gateway, "GET", "/v1/files", key="operator")).json["results"]
    assert {each["id"] for each in listed} == {file_id, mine["id"]}
    assert all(each["urls"]["get"] == f"{gateway.base_url}/files/{each['id']}" for each in listed)
    shown = await ask(gateway, "GET", f"/v1/files/{file_id}", key="operator")
    assert shown.json == next(each for each in listed if each["id"] == file_id)
    assert (await ask(gateway, "DELETE", f"/v1/files/{file_id}", key="alpha")).status == 404
    assert (await ask(gateway, "DELETE", f"/v1/files/{file_id}", key="operator")).status == 204
    assert (await ask(gateway, "DELETE", f"/v1/files/{file_id}", key="operator")).status == 404
    assert (await directly(gateway, "GET", f"/files/{file_id}")).status == 404
    assert (await ask(gateway, "DELETE", f"/v1/files/{mine['id']}", key="operator")).status == 204
    assert (await ask(gateway, "GET", f"/v1/files/{mine['id']}")).status == 404


async def test_pages_of_the_accounts_files_link_to_the_gateway(gateway: Stack):
    """`next` is upstream's cursor under the gateway's address."""
    for _ in range(101):
        await file_of_the_account(gateway)
    first = (await ask(gateway, "GET", "/v1/files", key="operator")).json
    assert len(first["results"]) == 100
    assert first["next"].startswith(f"{gateway.base_url}/files?cursor=")
    second = (await ask(gateway, "GET", first["next"], key="operator")).json
    assert (len(second["results"]), second["next"]) == (1, None)
    assert (await ask(gateway, "GET", "/v1/files?cursor=", key="operator")).json == first


async def test_repeated_upload_is_downloaded_by_its_own_id(gateway: Stack):
    """Its record has an id that upstream does not know."""
    sent = {"data": form(content()), "headers": {"Content-Type": FORM}}
    ids = {(await ask(gateway, "POST", "/v1/files", **sent)).json["id"] for _ in range(2)}
    sent = {"data": form(content()), "headers": {"Content-Type": FORM}}
    ids.add((await ask(gateway, "POST", "/v1/files", **sent)).json["id"])
    for file_id in ids:
        shown = await ask(gateway, "GET", f"/v1/files/{file_id}", key="operator")
        assert shown.status == 200
        assert (await ask(gateway, "DELETE", f"/v1/files/{file_id}", key="operator")).status == 204


async def test_listed_file_of_the_account_works_as_an_input(gateway: Stack):
    """The link that the operator's list shows is turned into upstream's; other teams still get 422."""
    file_id = await file_of_the_account(gateway)
    link = (await ask(gateway, "GET", f"/v1/files/{file_id}", key="operator")).json["urls"]["get"]
    body = {"version": version_of(gateway.upstream, "acme/upscale"), "input": {"image": link}}
    assert (await ask(gateway, "POST", "/v1/predictions", key="alpha", json=body)).status == 422
    assert (await ask(gateway, "POST", "/v1/predictions", key="operator", json=body)).status == 201
    [sent] = [each for each in gateway.upstream.requests if each.operation == "predictions.create"]
    assert f"{gateway.upstream.base_url}/files/{file_id}" in str(sent.body)


@pytest.mark.parametrize("family", ["predictions", "trainings"])
async def test_predictions_of_the_account_are_shown_and_cancelled(gateway: Stack, family: str):
    """Those made past the gateway, by id and in the list; other teams' too."""
    version = version_of(gateway.upstream, "acme/storyteller")
    made = (await directly(gateway, "POST", "/predictions", json={"version": version, "input": {"prompt": "x"}})).json
    theirs = (await create(gateway, key="beta", model="acme/storyteller")).json
    if family == "predictions":
        listed = (await ask(gateway, "GET", "/v1/predictions", key="operator")).json["results"]
        assert {made["id"], theirs["id"]} <= {each["id"] for each in listed}
        for each in (made, theirs):
            assert (await ask(gateway, "GET", f"/v1/predictions/{each['id']}", key="operator")).status == 200
            cancelled = await ask(gateway, "POST", f"/v1/predictions/{each['id']}/cancel", key="operator")
            assert cancelled.status == 200
            assert (await ask(gateway, "GET", f"/v1/predictions/{made['id']}", key="alpha")).status == 404
    else:
        assert (await ask(gateway, "GET", "/v1/trainings", key="operator")).json["results"] == []


async def test_deployments_are_all_shown_to_a_key_limited_to_some_models(open_gateway: OpenGateway):
    """The list of models says what a key may run and change, not what it sees."""
    limits = {"models": ["acme/other"], "scopes": ["read", "predict"]}
    async with open_gateway(teams={"operator": {"models": ["acme/other"]}, "beta": limits}) as stack:
        for key, status in (("operator", 200), ("beta", 404)):
            shown = await ask(stack, "GET", "/v1/deployments/acme/story-service", key=key)
            assert shown.status == status
            listed = (await ask(stack, "GET", "/v1/deployments", key=key)).json["results"]
            assert bool(listed) == (status == 200)
