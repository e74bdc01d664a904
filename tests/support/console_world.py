"""Two teams that have something of everything that the console shows: for tests of who sees what, and of what fits.

Every name of a team's has the team's name in it, and is as long as such a name can be, or nearly.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.domain import windows
from gateway.domain.scopes import Scope
from gateway.domain.windows import Window
from gateway.store.urls import open_store
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind
from tests.support.audit import BY_TEST
from tests.support.http_calls import ask
from tests.support.output_copies import paint_lake
from tests.support.polling import attempts
from tests.support.samples import finished, upload
from tests.support.stack import Stack
from tests.support.upstream import version_of

LEAD_SCOPES = [str(scope) for scope in Scope if scope not in (Scope.ACCOUNT, Scope.ADMIN)]
LONG = "-of-quite-some-length-without-a-single-space"
LAST_MONTH = 1_234_567_890_123
"""Micro-dollars."""
SECRET_PATH = "path-of-a-receiver-2f9a"
"""In the addresses of receivers, which are shown without their paths."""
SECRET_INPUT = "sk-secret-input-91b7"


def world_config(folder: Path, *teams: str) -> dict[str, Any]:
    """Return the settings of a gateway with teams that the world fits into."""
    return {
        "teams": {
            team: {
                "scopes": LEAD_SCOPES,
                "budget_usd_per_month": 12_345_678.9,
                "budget_usd_per_day": 1,
                "requests_per_minute": 600_000,
                "max_wait_seconds": 0,
                "unbound_tokens": True,
            }
            for team in teams
        },
        "prices": {"models": [{"model": "acme/*", "usd_per_run": 0.25}]},
        "cache": {"share": "all"},
        "tags": {"keys": ["project"]},
        "outputs": {"url": str(folder / "outputs")},
        "webhooks": {"allow_http": True, "allow_private_addresses": True},
    }


@dataclass(frozen=True)
class Having:
    """What a team has."""

    team: str
    user: str
    tag: str
    prompt: str
    receiver: str
    key_name: str
    key: str
    key_id: str
    prediction: str
    picture: str
    running: str
    file: str
    delivery: str

    @property
    def ids(self) -> dict[str, str]:
        """What the team's things are called in paths and forms, by kind."""
        kinds = ("prediction", "picture", "running", "key_id", "delivery", "file")
        return {kind: getattr(self, kind) for kind in kinds}

    @property
    def marks(self) -> list[str]:
        """Texts that only the team's data has."""
        return [self.team, *self.ids.values()]


async def fill_world(stack: Stack, team: str) -> Having:
    """Let a team do everything once, with its key, and return what it has then."""
    user, tag, prompt = f"{team}-user{LONG}@example.com", f"{team}-project{LONG}", f"{team}-prompt{LONG}"
    receiver, key_name = f"{team}{LONG}.example.com", f"{team}-key{LONG}"[:64]
    headers = {"Gateway-User": user, "Gateway-Tags": f"project={tag}"}
    made = await ask(
        stack, "POST", "/gateway/keys", key=team,
        json={"name": key_name, "scopes": ["read", "predict"], "models": ["acme/*"], "expires_at": "2999-01-01"},
    )  # fmt: skip
    assert made.status == 201, made.text

    async def run(model: str, **given: Any) -> Any:
        body = {"version": f"{model}:{version_of(stack.upstream, model)}", "input": given}
        return (await ask(stack, "POST", "/v1/predictions", key=team, json=body, headers=headers)).json

    prediction = (await run("acme/storyteller", prompt=prompt, seed=1))["id"]
    await finished(stack, prediction, key=team)
    await run("acme/storyteller", prompt=prompt, seed=1)
    for each in (
        await run("acme/signer", text=prompt, api_token=SECRET_INPUT),
        await run("acme/fail", kind="nsfw"),
    ):
        await finished(stack, each["id"], key=team)
    nothing = {"version": "acme/nothing-of-that-name", "input": {"prompt": prompt}}
    await ask(stack, "POST", "/v1/predictions", key=team, json=nothing, headers=headers)
    picture = (await paint_lake(stack, key=team, prompt=prompt)).json["id"]
    running = (await run("acme/slow", duration=3000))["id"]
    async for _ in attempts(pause=0.02):
        if (await ask(stack, "GET", f"/v1/predictions/{running}", key=team)).json["status"] == "processing":
            break
    file = (await ask(stack, "POST", "/v1/files", key=team, **upload(name=f"{team}{LONG}.txt"))).json["id"]
    delivery = await _failed_delivery(stack, team, receiver)
    async for _ in attempts(pause=0.05):
        page = await ask(stack, "GET", f"{stack.ops_url}/dashboard/predictions/{picture}", key=team)
        if "outputs stored" in page.text:
            break
    return Having(
        team=team, user=user, tag=tag, prompt=prompt, receiver=receiver, key_name=key_name, key=made.json["key"],
        key_id=made.json["id"], prediction=prediction, picture=picture, running=running, file=file, delivery=delivery,
    )  # fmt: skip


async def fill_worlds(stack: Stack, *teams: str) -> tuple[Having, ...]:
    """Do it for several teams."""
    return tuple(await asyncio.gather(*(fill_world(stack, team) for team in teams)))


async def _failed_delivery(stack: Stack, team: str, receiver: str) -> str:
    delivery = Delivery(
        id=f"msg_{team}", kind=DeliveryKind.ANNOUNCEMENT, team=team, url=f"https://{receiver}/{SECRET_PATH}",
        receiver=receiver, created_at=time.time(), next_at=4e9,
    )  # fmt: skip
    store = open_store(f"sqlite:///{stack.database}")
    await store.open()
    await store.add_delivery(delivery, b"{}")
    await store.mark_dead(delivery.id, time.time(), f"answered 503 {LONG * 3}", b"{}")
    # The rest of the team's budget for today, and something in the month before.
    now = time.time()
    before = windows.month_before(windows.first_day(Window.MONTH, windows.day_of(now)))
    for microusd, at in ((500_000, now), (LAST_MONTH, before * 86_400.0)):
        await store.adjust(team, microusd, f"correction{LONG}", at, actor=BY_TEST)
    await store.close()
    return delivery.id
