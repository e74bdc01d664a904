"""No secret is in any page, file, log line or entry of the audit log (docs/architecture.md, Invariants 1).

An operator and a team lead read every route of the ops listener, of a gateway that knows secrets of each kind. The scan
of this folder searches for them in every answer, log line and metric, and in the store's file.
"""

from pathlib import Path
from typing import Any

from tests.support.console_visits import listed_routes, send_form, signed_in, token_of, visit
from tests.support.console_world import SECRET_INPUT, SECRET_PATH, Having, fill_worlds, world_config
from tests.support.dashboard import OURS
from tests.support.http_calls import ask
from tests.support.issued_keys import mint
from tests.support.samples import fill
from tests.support.secret_scanner import SecretScanner
from tests.support.stack import OpenGateway, Stack

CSV = {"Accept": "text/csv"}
WRONG = "rgw_zzzzzzzzzzzz_a-key-that-nobody-has-2b7c"
FOLDED = "?by=tag:project", "?by=user", "?by=key"


async def test_no_secret_is_in_any_page_file_log_line_or_audit_entry(
    open_gateway: OpenGateway, folder: Path, guarded: dict[str, Any], secret_scanner: SecretScanner
):
    """Keys, sessions, browser tokens, the operators' token, secret inputs, and receivers with their signing secrets."""
    config = world_config(folder, "beta", "narwhal") | guarded
    config["teams"]["beta"]["budget_webhook"] = f"http://127.0.0.1:9/{SECRET_PATH}"
    secret_scanner.add("a secret input", SECRET_INPUT, is_sent=True)
    secret_scanner.add("the path of a receiver", SECRET_PATH, is_stored=True)
    secret_scanner.add("what somebody tried", WRONG)
    async with open_gateway(**config) as stack:
        worlds = await fill_worlds(stack, "beta", "narwhal")
        for having in worlds:
            await _add_secrets_of(stack, having, secret_scanner)
        operator, lead = await signed_in(stack, "alpha"), await signed_in(stack, "beta")
        for headers in (operator, lead):
            session = headers["Cookie"].partition(";")[0].partition("=")[2]
            secret_scanner.add("a session", session)
        refused = await send_form(stack, "/dashboard/sign-in", {"secret": WRONG}, OURS)
        assert refused.status == 401
        for name, headers in (("of-an-operator", operator), ("of-a-lead", lead)):
            await _change_keys(stack, headers, name, secret_scanner)
        for route in listed_routes():
            if route.method != "GET":
                continue
            for having in worlds:
                ids = having.ids.values() if "{" in route.path else [""]
                for each in dict.fromkeys(ids):
                    path = fill(route.path, id=each, name=each, place="0")
                    for headers in (operator, lead):
                        await visit(stack, "GET", path, headers)
                    if not route.is_console:
                        await visit(stack, "GET", path, operator | CSV)
        for query in FOLDED:
            for path in ("/dashboard/usage", "/dashboard/usage.csv", "/admin/usage"):
                assert (await visit(stack, "GET", path + query, operator)).status == 200
        audit = (await visit(stack, "GET", "/admin/audit?limit=1000", operator)).json["results"]
        assert {each["action"] for each in audit} >= {"key.created", "key.rotated", "key.revoked", "usage.adjusted"}
        deliveries = (await visit(stack, "GET", "/admin/webhooks", operator)).json["results"]
        assert {each["receiver"] for each in deliveries} >= {having.receiver for having in worlds}


async def _add_secrets_of(stack: Stack, having: Having, scanner: SecretScanner) -> None:
    signing = (await ask(stack, "GET", "/v1/webhooks/default/secret", key=having.team)).json["key"]
    scanner.add(f"the signing secret of {having.team}", signing, is_stored=True)
    token = (await mint(stack, having.team, user="ann", origins=None)).json["token"]
    scanner.add(f"a browser token of {having.team}", token)
    scanner.add(f"a key that {having.team} created", having.key)


async def _change_keys(stack: Stack, headers: dict[str, str], name: str, scanner: SecretScanner) -> None:
    """Create, rotate and revoke a key. The two answers that have a secret have nothing of any other."""
    fields = {"form_token": await token_of(stack, headers), "team": "beta", "name": name}
    made = await send_form(stack, "/dashboard/keys/create", fields, headers)
    assert made.status == 200, made.text
    first = _secret_of(made.text)
    scanner.add("a key of the console", first)
    key_id = first.split("_")[1]
    rotated = await send_form(stack, "/dashboard/keys/rotate", fields | {"id": key_id}, headers)
    second = _secret_of(rotated.text)
    assert second != first
    scanner.add("a rotated key of the console", second)
    revoked = await send_form(stack, "/dashboard/keys/revoke", fields | {"id": key_id}, headers)
    assert revoked.status == 200, revoked.text


def _secret_of(page: str) -> str:
    return page.partition('id="secret">')[2].partition("<")[0]
