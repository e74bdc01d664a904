"""Cost tags, from the request to usage."""

from typing import Any

from tests.support.access_log import AccessLog
from tests.support.session_calls import STORY, Reply, ask, create, finished, open_session
from tests.support.spending import PRICES, named, rows, usage
from tests.support.stack import OpenGateway

APOLLO = {"Gateway_Tags": "project=apollo, feature=search"}
GEMINI = {"Gateway_Tags": "project=gemini"}
TAGS = {"keys": ["project", "feature"], "max_values": 2}
ORIGIN = "https://app.example.com"


def runs_of(usage_by_tag: Any) -> dict[str | None, tuple[int, int, int, int]]:
    """Return runs, joins, hits and micro-dollars by value."""
    return {
        row["value"]: (*(row["predictions"][each] for each in ("run", "joined", "hit")), row["spend_microusd"])
        for row in usage_by_tag["rows"]
    }


async def test_tags_reach_the_records_the_log_and_usage_and_not_upstream(
    open_gateway: OpenGateway, access_log: AccessLog
):
    """A run counts for the tags of the request that started it, a hit saves under its own."""
    async with open_gateway(prices=PRICES, tags=TAGS) as stack, open_session(stack) as alpha:
        version = named(stack)
        started = await create(alpha, version, STORY, **APOLLO)
        await finished(alpha, started.json["id"])
        hit = await create(alpha, version, STORY, **GEMINI)
        assert hit.is_hit
        await create(alpha, version, STORY)

        explained = await ask(alpha, "GET", f"/gateway/explain/{started.json['id']}")
        assert explained.json["tags"] == {"feature": "search", "project": "apollo"}
        lines = [line.get("tags") for line in access_log.lines if line["route"] == "predictions.create"]
        assert lines == [{"feature": "search", "project": "apollo"}, {"project": "gemini"}, None]
        by_project = await usage(alpha, by="tag:project")
        assert by_project["by"] == "tag:project"
        assert runs_of(by_project) == {"apollo": (1, 0, 0, 250_000), "gemini": (0, 0, 1, 0), None: (0, 0, 1, 0)}
        assert by_project["total"]["predictions"] == {"run": 1, "joined": 0, "hit": 2}
        assert [row["value"] for row in (await usage(alpha, by="tag:feature"))["rows"]] == ["search", None]
        assert set(rows(stack, "SELECT kind, tags FROM ledger")) == {
            ("spend", '{"feature":"search","project":"apollo"}'),
            ("saved_hit", '{"project":"gemini"}'),
            ("saved_hit", ""),
        }
        # A third value of the day is not counted by name, and no create is refused for it.
        assert (await create(alpha, version, STORY, Gateway_Tags="project=mercury")).is_hit
        assert runs_of(await usage(alpha, by="tag:project"))["(other)"] == (0, 0, 1, 0)
        assert not [each for each in stack.upstream.requests if "gateway-tags" in each.headers]


async def test_invalid_tags_are_refused_before_anything_is_done(open_gateway: OpenGateway):
    """The answer names the header and what is wrong, as for other headers."""
    async with open_gateway(tags=TAGS) as stack, open_session(stack) as alpha:
        for header, reason in (("team=x", "the keys are feature, project"), ("project", "expected key=value")):
            refused = await create(alpha, named(stack), STORY, Gateway_Tags=header)
            assert refused.status == 422
            assert "Gateway-Tags" in refused.json["detail"]
            assert reason in refused.json["detail"]
        for by in ("tag", "tag:", "tag:A", "team", "user:x"):
            assert (await ask(alpha, "GET", "/gateway/usage", params={"by": by})).status == 422
        assert not stack.upstream.requests.count("*.create")


async def test_page_has_the_tags_of_its_token_and_no_others(open_gateway: OpenGateway):
    """Else any visitor could book costs on other projects. Tags of a token are checked when it is minted."""
    team = {"alpha": {"origins": [ORIGIN]}}
    async with open_gateway(tags=TAGS, teams=team) as stack, open_session(stack) as alpha:

        async def mint(tags: Any) -> Reply:
            return await ask(alpha, "POST", "/gateway/tokens", json={"ttl_seconds": 60, "user": "ann", "tags": tags})

        refused = await mint({"project": "a b"})
        assert refused.status == 422
        assert [each["field"] for each in refused.json["invalid_fields"]] == ["tags"]
        assert (await mint({"project": 1})).status == 422
        minted = await mint({"project": "apollo"})
        assert minted.json["tags"] == {"project": "apollo"}
        for token, expected in ((minted, {"project": "apollo"}), (await mint(None), {})):
            of_page = {"Authorization": f"Bearer {token.json['token']}", "Origin": ORIGIN, "Gateway-Tags": "no such=x"}
            made = await create(alpha, named(stack), STORY, **of_page)
            assert made.status == 201, made.text
            explained = await ask(alpha, "GET", f"/gateway/explain/{made.json['id']}")
            assert explained.json["tags"] == expected
