"""Configs of tests, as files and as mappings."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import (
    Config,
    ConfigError,
    Problem,
    from_mapping,
)

TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
ENVIRON = {"REPLICATE_API_TOKEN": TOKEN}
DIGEST = "ab" * 32


def made(environ: dict[str, str] | None = None, **sections: Any) -> Config:
    return from_mapping(sections, ENVIRON | (environ or {}))


def problems(environ: dict[str, str] | None = None, /, **sections: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        made(environ, **sections)
    assert all(isinstance(problem, Problem) for problem in caught.value.problems)
    return {problem.path: problem.message for problem in caught.value.problems}


def team(**settings: Any) -> dict[str, Any]:
    return {"name": "acme", **settings}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
