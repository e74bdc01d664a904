"""Budget alerts in the form of each receiver."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus
from gateway.domain.windows import Window
from gateway.money.rules import alerts
from gateway.money.rules.alerts import Alert, Format

NOW = 1_764_000_000.0
SCOPES = {
    "team/acme": {},
    "key/acme/web server": {"key": "acme/web server"},
    "user/team acme: ann": {"user": "ann"},
    "user/key acme/web: a: b": {"key": "acme/web", "user": "a: b"},
    "tag/team acme: project=apollo:x/y": {"tag": "project", "value": "apollo:x/y"},
}


def alert(
    percent: int = 80,
    scope: str = "team/acme",
    *,
    has_refused: bool = False,
    key_name: str | None = None,
    **fields: Any,
) -> Alert:
    given: dict[str, Any] = {"limit": 1_500_000, "used": 1_200_000, "held": 0, "remaining": 300_000} | fields
    status = LimitStatus(
        name="budget_usd_per_day",
        of=SubjectKind(scope.partition("/")[0]),
        scope=scope,
        kind=LimitKind.DOLLARS,
        window=Window.DAY,
        resets_at=NOW + 3600,
        **given,
    )
    return Alert(team="acme", percent=percent, status=status, at=NOW, has_refused=has_refused, key_name=key_name)


def body(form: Format, of: Alert) -> Any:
    return json.loads(alerts.body(of, form))


@pytest.mark.parametrize("scope", SCOPES)
def test_standard_message_says_whose_budget_it_is(scope: str) -> None:
    """A program reads the amounts exactly, and whose they are."""
    message = body(Format.STANDARD, alert(scope=scope))
    assert (message["type"], message["timestamp"]) == ("budget.warning", "2025-11-24T16:00:00.000Z")
    limit = message["data"].pop("limit")
    assert message["data"] == {"team": "acme", "percent": 80} | SCOPES[scope]
    assert (limit["of"], limit["used_microusd"], limit["used"]) == (scope.partition("/")[0], 1_200_000, "1.200000")
    assert body(Format.STANDARD, alert(100))["type"] == "budget.exhausted"


def test_slack_message_has_a_fallback_a_header_and_fields() -> None:
    """The form of an incoming webhook: `text`, and blocks of types that messages can have."""
    message = body(Format.SLACK, alert(scope="user/team acme: ann", held=100_000))
    assert message["text"] == "Budget 80 % used: team acme"
    header, section = message["blocks"]
    assert header == {"type": "header", "text": {"type": "plain_text", "text": "Budget 80 % used"}}
    assert [each["text"] for each in section["fields"]] == [
        "*Team*\nacme",
        "*User*\nann",
        "*Budget*\n$1.50 per day",
        "*Spent*\n$1.20",
        "*Reserved*\n$0.10",
        "*Resets*\n2025-11-24 17:00 UTC",
    ]
    assert {each["type"] for each in section["fields"]} == {"mrkdwn"}
    # Otherwise Slack makes links of URLs and channels, which a user's name can be.
    assert all(each["verbatim"] is True for each in section["fields"])


def test_teams_message_is_a_card_in_a_message() -> None:
    """The Workflows app posts the attachment's content as an Adaptive Card."""
    message = body(Format.TEAMS, alert(100))
    (attachment,) = message["attachments"]
    card = attachment["content"]
    assert message["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    title, *facts = card["body"]
    assert (title["text"], title["color"]) == ("Budget used up", "Attention")
    assert ["".join(run["text"] for run in each["inlines"]) for each in facts] == [
        "Team: acme",
        "Budget: $1.50 per day",
        "Spent: $1.20",
        "Resets: 2025-11-24 17:00 UTC",
    ]


def test_people_read_rounded_amounts_and_programs_exact_ones() -> None:
    """To the cent, but for less than one. The standard form has every micro-dollar."""
    of = alert(100, used=1_291_282, held=4_999)
    facts = [each["text"] for each in body(Format.SLACK, of)["blocks"][1]["fields"]]
    assert facts[2:4] == ["*Spent*\n$1.29", "*Reserved*\n$0.004999"]
    assert body(Format.STANDARD, of)["data"]["limit"]["used"] == "1.291282"


def test_budget_that_refused_a_create_says_so() -> None:
    """It is used up although less than its whole amount was spent."""
    refused = alert(100, has_refused=True)
    assert body(Format.STANDARD, refused)["data"]["reason"] == "create_refused"
    assert "A prediction was refused: less is left than its estimate." in str(body(Format.SLACK, refused))
    for other in (alert(80, has_refused=True), alert(100), alert(100, used=1_500_000, has_refused=True)):
        assert "reason" not in body(Format.STANDARD, other)["data"]
        assert "refused" not in str(body(Format.TEAMS, other))


def test_key_is_named_beside_its_id() -> None:
    """Nobody knows a key by its id."""
    of = alert(scope="key/b84nvdi65u4a", key_name="nightly")
    assert body(Format.SLACK, of)["blocks"][1]["fields"][1]["text"] == "*Key*\nnightly (b84nvdi65u4a)"
    data = body(Format.STANDARD, of)["data"]
    assert (data["key"], data["key_name"]) == ("b84nvdi65u4a", "nightly")


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200), st.integers(1, 100))
def test_name_of_a_user_is_text_in_every_form(user: str, percent: int) -> None:
    """A user's name mentions nobody, links to nothing, and stays within the bounds of Slack's blocks."""
    of = alert(percent, scope=f"user/team acme: {user}")
    assert body(Format.STANDARD, of)["data"]["user"] == user
    slack = body(Format.SLACK, of)
    texts = [slack["text"], *(each["text"] for each in slack["blocks"][1]["fields"])]
    assert not any(set("<>") & set(text) for text in texts)
    assert max(map(len, texts)) <= 2000
    assert len(texts) <= 1 + 10
    card = body(Format.TEAMS, of)["attachments"][0]["content"]
    assert [run["text"] for block in card["body"][1:] for run in block["inlines"]].count(user) >= 1
    assert "text" not in card["body"][1]
