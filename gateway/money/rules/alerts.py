"""Budget alerts as the body of a webhook, in the form that its receiver reads.

- `standard`: JSON in the form of Standard Webhooks.
- `slack`: a message for an incoming webhook of Slack, with blocks. `&`, `<` and `>` are escaped, and the text is
  `verbatim`, without which Slack looks for URLs and channels in it: so no name becomes a link or a mention. See
  docs.slack.dev/messaging/sending-messages-using-incoming-webhooks and
  docs.slack.dev/messaging/formatting-message-text.
- `teams`: an Adaptive Card for the Workflows app of Microsoft Teams. Names are text runs, which have no Markdown. See
  learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using ("Send Adaptive Cards
  using Incoming Webhook") and adaptivecards.io/explorer/RichTextBlock.html.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from gateway.domain import times
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitStatus
from gateway.money.rules import refusals

WARNING: Final = "budget.warning"
EXHAUSTED: Final = "budget.exhausted"
"""Message types, in the form that Standard Webhooks recommend."""
FULL: Final = 100
_MICROUSD_PER_CENT: Final = 10_000


class Format(StrEnum):
    """The form of an alert."""

    STANDARD = "standard"
    SLACK = "slack"
    TEAMS = "teams"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A budget of which a threshold was reached."""

    team: str
    percent: int
    """The threshold."""
    status: LimitStatus
    at: float
    key_name: str | None = None
    """The name of the key in `owner`."""
    has_refused: bool = False
    """Whether the budget has just refused a create, for which too little is left."""

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self.percent >= FULL

    @property
    def owner(self) -> Mapping[str, str]:
        """The key, the user, or the cost tag and its value, whose budget it is; empty for a budget of the team."""
        name = self.status.scope.partition("/")[2]
        match self.status.of:
            case SubjectKind.KEY:
                return {"key": name}
            case SubjectKind.USER:
                of, _, user = name.partition(": ")
                kind, _, owner = of.partition(" ")
                return {"key": owner, "user": user} if kind == "key" else {"user": user}
            case SubjectKind.TAG:
                return self.status.tag
        return {}


def body(alert: Alert, form: Format) -> bytes:
    """Return the body of the webhook."""
    return msgspec.json.encode(_FORMS[form](alert))


def _standard(alert: Alert) -> dict[str, object]:
    data: dict[str, object] = {"team": alert.team, **alert.owner}
    if alert.key_name is not None:
        data["key_name"] = alert.key_name
    data |= {"percent": alert.percent, "limit": refusals.shown(alert.status)}
    if _is_by_refusal(alert):
        data["reason"] = "create_refused"
    kind = EXHAUSTED if alert.is_exhausted else WARNING
    return {"type": kind, "timestamp": times.render(alert.at), "data": data}


def _slack(alert: Alert) -> dict[str, object]:
    title = _title(alert)
    fields = [
        {"type": "mrkdwn", "text": f"*{name}*\n{_escaped(value)}", "verbatim": True}
        for name, value in _facts(alert).items()
    ]
    return {
        # For notifications, and for clients that show no blocks.
        "text": f"{title}: team {_escaped(alert.team)}",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": title}},
            {"type": "section", "fields": fields},
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _teams(alert: Alert) -> dict[str, object]:
    color = "Attention" if alert.is_exhausted else "Warning"
    title = {"type": "TextBlock", "text": _title(alert), "weight": "Bolder", "size": "Medium", "color": color}
    facts = [
        {
            "type": "RichTextBlock",
            "inlines": [
                {"type": "TextRun", "text": f"{name}: ", "weight": "Bolder"},
                {"type": "TextRun", "text": value},
            ],
        }
        for name, value in _facts(alert).items()
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [title, *facts],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


_FORMS: Final[Mapping[Format, Callable[[Alert], dict[str, object]]]] = {
    Format.STANDARD: _standard,
    Format.SLACK: _slack,
    Format.TEAMS: _teams,
}


def _title(alert: Alert) -> str:
    return "Budget used up" if alert.is_exhausted else f"Budget {alert.percent} % used"


def _facts(alert: Alert) -> dict[str, str]:
    status = alert.status
    whose = {"key": "Key", "user": "User", "tag": "Tag", "value": "Value"}
    facts = {"Team": alert.team} | {whose[name]: value for name, value in alert.owner.items()}
    if alert.key_name is not None:
        facts["Key"] = f"{alert.key_name} ({facts['Key']})"
    facts |= {"Budget": f"{_dollars(status.limit)} per {status.window}", "Spent": _dollars(status.used)}
    if status.held:
        facts["Reserved"] = _dollars(status.held)
    if _is_by_refusal(alert):
        facts["Reason"] = "A prediction was refused: less is left than its estimate."
    if status.resets_at is not None:
        facts["Resets"] = f"{times.render(status.resets_at)[:16].replace('T', ' ')} UTC"
    return facts


def _is_by_refusal(alert: Alert) -> bool:
    return alert.is_exhausted and alert.has_refused and alert.status.used < alert.status.limit


def _dollars(microusd: float) -> str:
    """Return an amount for people: in cents, and exactly below one cent."""
    cents = round(microusd / _MICROUSD_PER_CENT)
    return refusals.dollars(cents * _MICROUSD_PER_CENT if cents else microusd)
