"""Accounts: tokens, rate limits, lists, trainings, and unknown resources."""

import pytest

from tests.support.polling import until

SDXL = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"


async def test_lists_are_paginated_by_a_hundred(start):
    """Newest first, absolute links in both directions, nothing skipped or repeated."""
    api = await start(speed=100)
    ids = [(await api.create("replicate/hello-world", {"text": str(n)})).body["id"] for n in range(230)]
    pages = [await api.get("/predictions")]
    while pages[-1].body["next"]:
        assert pages[-1].body["next"].startswith(api.simulator.base_url + "/predictions?cursor=")
        await api.create("replicate/hello-world", {"text": "in between"})
        pages.append(await api.get(pages[-1].body["next"]))
    assert [len(page.body["results"]) for page in pages] == [100, 100, 30]
    assert [each["id"] for page in pages for each in page.body["results"]] == ids[::-1]
    assert pages[0].body["previous"] is None
    back = await api.get(pages[1].body["previous"])
    assert [each["id"] for each in back.body["results"]] == ids[::-1][:100]
    assert (await api.get("/predictions?cursor=nonsense")).status == 404


async def test_lists_can_be_filtered_by_time_and_source(api):
    """created_after is inclusive, created_before is exclusive, and nothing is from the web site."""
    bodies = [(await api.create("replicate/hello-world", {"text": str(n)})).body for n in range(3)]
    listed = (await api.get("/predictions")).body["results"]
    middle = listed[1]["created_at"]

    async def ids(query):
        return [each["id"] for each in (await api.get(f"/predictions?{query}")).body["results"]]

    assert await ids(f"created_after={middle}") == [bodies[2]["id"], bodies[1]["id"]]
    assert await ids(f"created_before={middle}") == [bodies[0]["id"]]
    assert await ids("source=web") == []
    assert (await api.get("/predictions?source=api")).status == 400
    assert (await api.get("/predictions?created_after=yesterday")).status == 400


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (None, "You did not pass an authentication token"),
        ("Bearer ", "You did not pass an authentication token"),
        ("Bearer nonsense", "You did not pass a valid authentication token"),
        ("Basic r8_abc", "You did not pass a valid authentication token"),
    ],
)
async def test_requests_without_a_valid_token_get_401(api, header, detail):
    """The recorded body, without rate-limit headers."""
    api.token = None
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("GET", "/account"), ("POST", "/predictions"), ("GET", "/files"), ("GET", "/nothing")):
        reply = await api.ask(method, path, headers=headers)
        assert reply.status == 401
        assert reply.body == {"title": "Unauthenticated", "detail": detail, "status": 401}
        assert "ratelimit-remaining" not in reply.headers
    assert (await api.get("/search?query=llama", headers=headers)).status == 200


async def test_accounts_are_isolated(start):
    """Predictions, files and trainings of another account are not found."""
    api = await start(tokens=("r8_one=one", "r8_two=two"))
    mine = (await api.create("replicate/hello-world", {"text": "x"})).body["id"]
    assert (await api.get("/account")).body["username"] == "one"
    api.token = "r8_two"
    assert (await api.get("/account", headers={"Authorization": "Token r8_two"})).body["username"] == "two"
    assert (await api.get(f"/predictions/{mine}")).status == 404
    assert (await api.post(f"/predictions/{mine}/cancel")).status == 404
    assert (await api.get("/predictions")).body["results"] == []


async def test_unknown_resources_are_404_and_wrong_methods_405(api):
    """With the text of the backend of the route."""
    reply = await api.get("/predictions/nothing")
    assert (reply.status, reply.body) == (404, {"detail": "The requested resource could not be found.", "status": 404})
    assert (await api.get("/models/a/b")).body == {"detail": "Not found."}
    assert (await api.get("/nothing/at/all")).status == 404
    reply = await api.ask("PUT", "/predictions")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, POST, HEAD, OPTIONS")
    assert reply.body == {"detail": 'Method "PUT" not allowed.'}


async def test_creates_and_reads_have_separate_rate_limits(start):
    """Creates are exhausted first; the 429 has the time to retry."""
    api = await start(creates_per_minute=3, requests_per_minute=5)
    remaining = [
        (await api.create("replicate/hello-world", {"text": "x"})).headers["ratelimit-remaining"] for _ in range(3)
    ]
    assert remaining == ["2", "1", "0"]
    reply = await api.create("replicate/hello-world", {"text": "x"})
    assert (reply.status, reply.headers["Retry-After"]) == (429, "20")
    assert reply.body == {
        "detail": "Request was throttled. Your rate limit resets in ~20s.",
        "status": 429,
        "retry_after": 20,
    }
    assert (await api.get("/account")).headers["ratelimit-remaining"] == "4"
    prediction = api.simulator.predictions[0].id
    assert (await api.get(f"/predictions/{prediction}")).headers["ratelimit-remaining"] == "59999"
    api.simulator.clock.advance(20)
    assert (await api.create("replicate/hello-world", {"text": "x"})).status == 201


async def test_account_low_on_credit_creates_one_at_a_time(start):
    """With the other 429 text."""
    api = await start(low_credit=True)
    assert (await api.create("replicate/hello-world", {"text": "x"})).status == 201
    reply = await api.create("replicate/hello-world", {"text": "x"})
    assert reply.status == 429
    assert (
        "reduced to 6 requests per minute with a burst of 1 requests while you have less than $5.0 in credit"
        in reply.detail
    )


async def test_oldest_predictions_are_deleted_above_the_limit(start):
    """Memory is bounded by a setting."""
    api = await start(max_predictions=50, speed=100)
    first = (await api.create("acme/storyteller", {"prompt": "x"})).body
    for _ in range(60):
        await api.create("replicate/hello-world", {"text": "x"})
    assert len(api.simulator.predictions) <= 50
    assert (await api.get(f"/predictions/{first['id']}")).status == 404
    assert (await api.get("/predictions")).status == 200


async def test_links_of_a_training_differ_between_create_and_read(start):
    """As recorded; both links work."""
    api = await start(speed=100)
    destination = {"owner": "acme", "name": "mine", "visibility": "private", "hardware": "cpu"}
    assert (await api.post("/models", destination)).status == 201
    path = f"/models/stability-ai/sdxl/versions/{SDXL}/trainings"
    body = {"destination": "acme/mine", "input": {"input_images": "https://example.com/a.zip"}}
    created = (await api.post(path, body)).body
    assert "/v1/predictions/" in created["urls"]["get"]
    assert "data_removed" not in created
    assert (await api.get(f"/predictions/{created['id']}")).status == 200
    await until(lambda: api.simulator.predictions[0].terminal)
    done = (await api.get(f"/trainings/{created['id']}")).body
    assert "/v1/trainings/" in done["urls"]["get"]
    assert done["status"] == "succeeded"
    trained = done["output"]["version"].removeprefix("acme/mine:")
    reply = await api.post(
        "/predictions", {"version": trained, "input": {"width": 32, "height": 32}}, headers={"Prefer": "wait"}
    )
    assert reply.body["model"] == "acme/mine"
    assert len(reply.body["output"]) == 1
    assert [each["id"] for each in (await api.get("/trainings")).body["results"]] == [created["id"]]
    assert (await api.get(f"/trainings/{reply.body['id']}")).status == 404
    assert (await api.post(path, {"destination": "acme/mine", "input": {}})).status == 422
    second = (await api.post(path, body)).body
    assert (await api.post(f"/trainings/{second['id']}/cancel")).body["status"] == "canceled"
