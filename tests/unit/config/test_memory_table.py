"""The table of what the gateway may use agrees with the defaults, and the containers' memory with its sum."""

import re
from pathlib import Path

from gateway.config import Config

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024
ROW = re.compile(r"\| (?P<what>[^|]+) \| (?P<setting>[^|]*?)\s*\| (?P<mib>\d+) \|")


def rows() -> list[re.Match[str]]:
    section = (ROOT / "docs/performance.md").read_text().split("## What the gateway may use")[1].split("\n## ")[0]
    return [row for line in section.splitlines() if (row := ROW.match(line))]


def test_defaults_are_those_of_the_table():
    config = Config()
    checked = 0
    for row in rows():
        for section, name in re.findall(r"`\[(\w+)\] (\w+_bytes)`", row["setting"]):
            if hasattr(config, section) and "copies" not in row["what"]:
                assert getattr(getattr(config, section), name) == int(row["mib"]) * MIB, name
                checked += 1
    assert checked >= 5


def test_the_sum_is_within_the_memory_of_the_containers():
    *parts, total = (int(row["mib"]) for row in rows())
    assert sum(parts) == total
    given = re.findall(r"memory: (\d+)(?:m|Mi)\b", (ROOT / "compose.yaml").read_text())
    given += re.findall(r"limits: \{memory: (\d+)Mi\}", (ROOT / "deploy/kubernetes.yaml").read_text())
    assert {int(each) for each in given} == {2560}
    assert total < 2560
