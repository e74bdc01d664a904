"""The example config loads unchanged and has every setting."""

import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from gateway.config import Config, from_mapping, load
from gateway.config.issuers import Issuer
from gateway.config.problems import models_in
from gateway.config.teams import LIMIT_NAMES

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"
TEXT = EXAMPLE.read_text()
NAME_OF_A_TAG = re.compile(r"(?<=^teams\.per_tag)\.[a-z:]+")
SETTING_OFF = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)
ISSUERS_OFF = re.compile(r"^# (?=\[\[issuers\]\]\n)", re.MULTILINE)
ENVIRON = {"REPLICATE_API_TOKEN": "r8_0123456789abcdefghijklmnopqrstuvwxyz0"}


def fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield every field as `teams.keys.name`."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        for inner in models_in(field.annotation):
            yield from fields(inner, f"{path}{name}.")


def given(data: Any, path: str = "") -> Iterator[str]:
    """Yield every key of a file in the same format."""
    if isinstance(data, list | tuple):
        for item in data:
            yield from given(item, path)
    elif isinstance(data, dict):
        for name, value in data.items():
            yield f"{path}{name}"
            yield from given(value, f"{path}{name}.")


def with_issuers(text: str) -> str:
    """Enable the last part of the example, whose lines all begin with a # and a space."""
    (start,) = (match.start() for match in ISSUERS_OFF.finditer(text))
    return text[:start] + re.sub(r"^# ", "", text[start:], flags=re.MULTILINE)


def test_example_loads_unchanged():
    """It only needs the token in the environment."""
    config = load(EXAMPLE, ENVIRON)
    assert [team.name for team in config.teams] == ["research", "acme"]


def test_example_has_every_key():
    """Every setting is documented in the example."""
    found = given(tomllib.loads(SETTING_OFF.sub("", with_issuers(TEXT))))
    # What the table of tags has is named by the values of tags.
    everything = {NAME_OF_A_TAG.sub("", name) for name in found}
    missing = set(fields(Config)) - everything
    assert not missing
    # The names in these tables are values of a claim.
    of_claims = ("issuers.teams.", "issuers.console.leads.")
    others = {name for name in everything if not name.startswith(of_claims)}
    assert not others - set(fields(Config))


def test_example_of_issuers_can_be_enabled(tmp_path):
    """It shows the defaults, apart from what narrows its users' rights. Its alternative loads too."""
    (tmp_path / "config.toml").write_text(with_issuers(TEXT))
    (issuer,) = load(tmp_path / "config.toml", ENVIRON).issuers
    shown = Issuer(issuer=issuer.issuer, audience=issuer.audience, name=issuer.name, team=issuer.team)
    differing = {name for name in type(issuer).model_fields if getattr(issuer, name) != getattr(shown, name)}
    assert differing == {"console", "scopes", "models", *LIMIT_NAMES, "per_user", "per_address"}
    by_claim = SETTING_OFF.sub("", with_issuers(TEXT)[TEXT.index("# [[issuers]]") :]).replace('team = "acme"\n', "")
    by_claim = re.sub(r"^client_secret_file = .*\n", "", by_claim, flags=re.MULTILINE)
    research = 'name = "research"'
    with_pages = TEXT.replace(research, f'{research}\norigins = ["https://app.example.com"]')
    (tmp_path / "config.toml").write_text(with_pages + by_claim)
    (issuer,) = load(tmp_path / "config.toml", ENVIRON | {"CONSOLE_CLIENT_SECRET": "s"}).issuers
    assert issuer.teams == {"org_8Zk2": "acme", "org_1cPw": "research"}


def test_example_shows_the_defaults():
    """Apart from teams, aliases, prices and rules, it equals an empty config."""
    data = tomllib.loads(TEXT, parse_float=Decimal)
    del data["teams"], data["aliases"], data["prices"]["models"], data["cache"]["rules"]
    assert from_mapping(data, ENVIRON) == from_mapping({}, ENVIRON)


@pytest.mark.parametrize("line", SETTING_OFF.sub("\0", TEXT).split("\0")[1:])
def test_each_commented_setting_can_be_enabled(tmp_path, line):
    """Without the #, the config loads, once the alternative is removed."""
    setting = line.split("\n")[0]
    name = setting.split(" = ")[0]
    text = TEXT.replace(f"#{setting}", setting)
    if name == "token_file":
        (tmp_path / "token").write_text("r8_0123456789abcdef")
        text = text.replace("/run/secrets/replicate", f"{tmp_path}/token")
        text = text.replace("/run/secrets/ops_token", f"{tmp_path}/token")
        if "replicate" in setting:
            text = text.replace('token_env = "REPLICATE_API_TOKEN"', "")
    if name == "password_file":
        (tmp_path / "password").write_text("secret")
        text = text.replace("/run/secrets/store_password", f"{tmp_path}/password")
    if name == "persist":
        text = text.replace("#url = ", "url = ")
    if name == "per_tag":
        text = text.replace("#keys = ", "keys = ")
    if name == "key_env":
        text = text.replace('sha256 = "' + "0" * 64 + '"', "")
    path = tmp_path / "config.toml"
    path.write_text(text)
    named = {"GATEWAY_OPS_TOKEN": "x" * 30, "ACME_KEY": "y" * 30, "GATEWAY_STORE_PASSWORD": "z"}
    config = load(path, ENVIRON | named)
    assert name in {place.rpartition(".")[2] for place in given(config.model_dump(exclude_unset=True))}


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            yield from _models(inner)


@pytest.mark.parametrize("model", sorted(set(_models(Config)), key=lambda model: model.__name__))
def test_every_field_is_described_and_has_an_example(model):
    """Error messages show the example."""
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.examples or list(models_in(field.annotation)), name


@pytest.mark.parametrize("model", sorted(set(_models(Config)), key=lambda model: model.__name__))
def test_examples_are_valid_values(model):
    """The "for example" of an error can be copied."""
    for name, field in model.model_fields.items():
        if field.examples and name != "sha256":
            TypeAdapter(field.rebuild_annotation()).validate_python(field.examples[0])
