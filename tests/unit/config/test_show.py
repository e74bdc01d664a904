"""The effective config as TOML: every value with its source, and no secret."""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Places, from_mapping, load_with_places
from gateway.config.show import lines
from tests.support.config_values import ENVIRON
from tests.support.doc_blocks import ROOT

TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
HEX = "ab" * 32
TEXT = f"""
[server]
port = 8081
[upstream]
token_env = "{TOKEN}"
[cache]
ttl_seconds = 0.5
[[aliases]]
name = "acme/pinned"
target = "meta/llama:{HEX}"
[[teams]]
name = "acme"
budget_usd_per_day = 2.50
budget_webhook = "https://hooks.example.com/secret-of-the-hook"
per_user = {{ burst = 3, requests_per_minute = 60 }}
[[teams.keys]]
name = "web"
sha256 = "{HEX}"
expires = 2030-01-31
[[teams]]
name = "beta"
"""


def shown(folder: Path, text: str, *, only_given: bool = False, **environ: str) -> list[str]:
    file = folder / "config.toml"
    file.write_text(text)
    config, places, _ = load_with_places(file, {**ENVIRON, **environ}, serving=False)
    found = [line.replace(f"{folder}/", "") for line in lines(config, places, only_given=only_given)]
    return [" ".join(line.split()) for line in found]


def test_each_setting_has_its_value_and_its_source(tmp_path: Path):
    """A line of the file, a variable, or the default."""
    found = shown(tmp_path, TEXT, GATEWAY__SERVER__HOST="0.0.0.0", GATEWAY__OPS__TOKEN_ENV="OPS")
    for line in (
        'host = "0.0.0.0" # GATEWAY__SERVER__HOST',
        "port = 8081 # config.toml:3",
        "workers = 1 # default",
        "#public_url is not set",
        'token_env = "OPS" # GATEWAY__OPS__TOKEN_ENV',
        "ttl_seconds = 0.5 # config.toml:7",
        f'target = "meta/llama:{HEX}" # config.toml:10',
        "budget_usd_per_day = 2.5 # config.toml:13",
        "per_user = { burst = 3, requests_per_minute = 60 } # config.toml:15",
        "expires = 2030-01-31T00:00:00+00:00 # config.toml:19",
    ):
        assert line in found


def test_no_secret_is_shown(tmp_path: Path):
    """Neither one that is where it belongs, nor one that was written in the place of its name."""
    found = shown(tmp_path, TEXT)
    assert "#token_env is set, and not shown # config.toml:5" in found
    assert "#sha256 is set, and not shown # config.toml:18" in found
    assert "#budget_webhook is set, and not shown # config.toml:14" in found
    url = "postgresql://gateway@db/gateway?sslmode=verify-full&sslpassword=secret-of-the-key"
    found += shown(tmp_path, f"[store]\nurl = '{url}'\n")
    assert "db/gateway?sslmode=verify-full&sslpassword=(not shown)" in "".join(found)
    for secret in (TOKEN, "secret-of-the-hook", "secret-of-the-key", *ENVIRON.values()):
        assert secret not in "\n".join(found)


def test_only_what_is_given_leaves_out_the_defaults(tmp_path: Path):
    """The shortest config with the same effect. A team without a setting is there."""
    found = shown(tmp_path, TEXT, only_given=True, GATEWAY__CACHE__ENABLED="false")
    assert [line for line in found if line.startswith("[")] == [
        "[server]", "[upstream]", "[cache]", "[[aliases]]", "[[teams]]", "[[teams.keys]]", "[[teams]]",
    ]  # fmt: skip
    assert not any(line.endswith("# default") for line in found)
    assert "enabled = false # GATEWAY__CACHE__ENABLED" in found


@pytest.mark.parametrize("only_given", [True, False])
def test_what_is_shown_is_the_same_config(only_given: bool):
    """It is TOML, and loads to what was shown, except for what is not shown."""
    text = (ROOT / "config.example.toml").read_text()
    data = tomllib.loads(text, parse_float=Decimal)
    config = from_mapping(data, ENVIRON, file="config.toml", text=text)
    found = tomllib.loads("\n".join(lines(config, Places("x", text, data), only_given=only_given)), parse_float=Decimal)

    def hide(teams: list[dict[str, Any]]) -> None:
        for team in teams:
            team.pop("budget_webhook", None)
            for number, key in enumerate(team.get("keys", ())):
                key["sha256"] = f"{number:064}"

    # A default that is written out counts as given, and this one needs a url.
    found.get("outputs", {}).pop("persist", None)
    hide(data["teams"])
    hide(found["teams"])
    one, two = (from_mapping(each, ENVIRON, serving=False).model_dump() for each in (data, found))
    assert one == two
