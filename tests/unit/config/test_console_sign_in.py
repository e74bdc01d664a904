"""Signing in to the console in the config: secrets, probable mistakes, and what a reload tells."""

from pathlib import Path
from typing import Any

import pytest

from gateway.assembly import settings
from gateway.config import Config, warnings
from gateway.config.changes import diff
from tests.support.config_files import made, problems, team

SECRET = "a-secret-of-the-client"
CONSOLE: dict[str, Any] = {"client_id": "console", "operator_claim": "groups", "operators": ["platform"]}
OPS = {"token_env": "OPS", "public_url": "https://ops.example.com/"}


def config(console: dict[str, Any] | None = None, ops: dict[str, Any] | None = None, **environ: str) -> Config:
    issuer = {"issuer": "https://id.example.com", "name": "id", "console": CONSOLE | (console or {})}
    given = {"OPS": "x" * 30, "SECRET": SECRET} | environ
    return made(given, teams=[team(name="acme")], ops=OPS if ops is None else ops, issuers=[issuer])


def said(config: Config) -> dict[str, str]:
    return {each.path: each.message for each in warnings(config, 0.0)}


def test_issuer_for_the_console_alone_needs_no_audience():
    """So no token of it counts instead of a key."""
    (issuer,) = settings.issuer_settings(config()).issuers
    assert (issuer.audiences, issuer.all_teams) == (frozenset(), ())
    assert issuer.console is not None
    assert (issuer.console.client_secret, issuer.console.scopes) == (None, ("openid", "profile"))
    assert issuer.console.operators == {"platform"}
    assert settings.http_settings(config(), {}).ops_public_url == "https://ops.example.com"
    assert not [path for path in said(config()) if path.startswith(("issuers", "ops"))]


def test_secret_comes_from_the_environment_or_a_file(tmp_path: Path):
    """And is in no text. Both at once are refused."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    by_file = {"client_secret_file": str(tmp_path / "secret")}
    for given in ({"client_secret_env": "SECRET"}, by_file):
        found = config(given)
        (issuer,) = settings.issuer_settings(found).issuers
        assert issuer.console is not None
        assert issuer.console.client_secret == SECRET
        assert SECRET in found.secret_values()
        assert SECRET not in f"{found!r} {issuer!r} {found.model_dump_json()}"
    both = {"issuer": "https://id.example.com", "console": CONSOLE | by_file | {"client_secret_env": "SECRET"}}
    found_problems = problems({"SECRET": SECRET}, teams=[team(name="acme")], issuers=[both])
    assert "remove one of them" in found_problems["issuers[0].console.client_secret_file"]


@pytest.mark.parametrize(
    ("console", "ops", "path", "message"),
    [
        ({}, {"token_env": "OPS", "host": "0.0.0.0"}, "issuers[0].console", "public_url is not set"),
        ({}, {}, "issuers[0].console", "everybody on this machine is an operator"),
        ({}, OPS | {"public_url": "http://ops.example.com"}, "ops.public_url", "is plain http"),
        ({}, OPS, "server.trusted_proxies", "keep all others from signing in"),
        ({"scopes": ["openid", "offline_access"]}, OPS, "issuers[0].console.scopes", "does not use"),
        (
            {"operator_claim": "user_metadata.role"},
            OPS,
            "issuers[0].console.operator_claim",
            "can be written by users themselves",
        ),
        ({"operator_claim": "nickname"}, OPS, "issuers[0].console.operator_claim", "changed by users themselves"),
    ],
)
def test_probable_mistakes_are_warned_of(console: dict[str, Any], ops: dict[str, Any], path: str, message: str):
    assert message in said(config(console, ops))[path]


@pytest.mark.parametrize("url", ["http://localhost:9464", "http://127.0.0.1:9464"])
def test_plain_http_on_this_machine_is_no_mistake(url: str):
    assert "ops.public_url" not in said(config(ops=OPS | {"public_url": url}))


@pytest.mark.parametrize("url", ["https://example.com/ops", "ops.example.com", "ftp://ops.example.com"])
def test_address_of_the_console_is_an_origin(url: str):
    """Its pages are at /dashboard."""
    assert "expected an" in problems(teams=[team(name="acme")], ops={"public_url": url})["ops.public_url"]


def test_reload_tells_what_has_changed_without_the_secret():
    """Also if only the secret has."""
    before = config({"client_secret_env": "SECRET"})
    after = config({"client_secret_env": "SECRET", "operators": ["sre"]}, SECRET="another-secret")
    changes = {each.path: (each.old, each.new) for each in diff(before, after)}
    assert changes == {
        "issuers[id].console.operators": ('["platform"]', '["sre"]'),
        "issuers[id].console.client_secret": ("(not shown)", "(not shown)"),
    }
    assert diff(before, config({"client_secret_env": "SECRET"})) == []
