"""The JSON Schema of the config: it accepts what loads, and refuses what editors can see is wrong."""

import json
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel

from gateway.commands.config import FIRST_CONFIG
from gateway.config import Config
from gateway.config.problems import models_in
from gateway.config.schema import schema
from tests.support.config_values import AROUND, VALUES
from tests.support.doc_blocks import ROOT

SCHEMA = schema()
VALID = Draft7Validator(SCHEMA)
FILES = [ROOT / "config.example.toml", *sorted((ROOT / "deploy").rglob("*.toml"))]


def problems(data: Any) -> list[str]:
    # A date of TOML is a text for the editors, and a number of theirs is not exact.
    plain = json.loads(
        json.dumps(data, default=lambda value: float(value) if isinstance(value, Decimal) else str(value))
    )
    return [f"{error.json_path}: {error.message}" for error in VALID.iter_errors(plain)]


def test_schema_is_one_of_draft_7():
    """Editors of TOML know this draft. It has no null, which TOML lacks, and nothing beside a reference."""
    Draft7Validator.check_schema(SCHEMA)
    text = json.dumps(SCHEMA)
    assert '"type": "null"' not in text
    assert '"default": null' not in text
    assert "$defs" not in text

    def references(value: Any):
        if isinstance(value, dict):
            assert "$ref" not in value or len(value) == 1
            for each in value.values():
                references(each)
        elif isinstance(value, list):
            for each in value:
                references(each)

    references(SCHEMA)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_of_the_repository_are_valid(path: Path):
    """With the settings that are comments, too."""
    text = path.read_text()
    assert problems(tomllib.loads(text)) == []
    assert problems(tomllib.loads(re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE))) == []


def test_first_config_is_valid():
    """What `gateway config init` writes."""
    assert problems(tomllib.loads(FIRST_CONFIG)) == []


def test_every_setting_is_described():
    """Editors show the description while one types."""

    def check(model: type[BaseModel]) -> None:
        described = SCHEMA["definitions"].get(model.__name__, SCHEMA)["properties"]
        for name, field in model.model_fields.items():
            inner = list(models_in(field.annotation))
            assert described[name].get("description") or inner, name
            for each in inner:
                check(each)

    check(Config)


@pytest.mark.parametrize("key", VALUES)
def test_values_that_load_are_valid(key: str, tmp_path: Path):
    """The schema is not stricter than the gateway."""
    section, name = key.split(".")
    around = AROUND.get(key, {})
    for value in VALUES[key]:
        given = value.format(folder=tmp_path) if isinstance(value, str) else value
        assert problems({**around, section: {**around.get(section, {}), name: given}}) == []


@pytest.mark.parametrize(
    "data",
    [
        {"serve": {}},
        {"server": {"prot": 1}},
        {"server": {"port": "8080"}},
        {"server": {"port": 65536}},
        {"server": {"port": 1.5}},
        {"server": {"trusted_proxies": "10.0.0.0/8"}},
        {"cache": {"share": "everyone"}},
        {"cache": {"enabled": 1}},
        {"prices": {"models": [{"usd_per_run": 1}]}},
        {"prices": {"models": [{"model": "a/b", "usd_per_run": -1}]}},
        {"aliases": [{"name": "a/b"}]},
        {"teams": {"name": "acme"}},
        {"teams": [{}]},
        {"teams": [{"name": "Acme Inc"}]},
        {"teams": [{"name": "acme", "budget_usd_per_day": 0}]},
        {"teams": [{"name": "acme", "models": []}]},
        {"teams": [{"name": "acme", "scopes": ["fly"]}]},
        {"teams": [{"name": "acme", "per_user": {"burts": 1}}]},
        {"teams": [{"name": "acme", "per_tag": {"project": {"requests_per_minute": 1}}}]},
        {"teams": [{"name": "acme", "keys": [{"key": "rgw_x"}]}]},
        {"teams": [{"name": "acme", "keys": [{"sha256": "0"}]}]},
    ],
    ids=json.dumps,
)
def test_mistake_is_seen_in_the_editor(data: Any):
    """An unknown key, a wrong type, a value out of range."""
    assert problems(data)
