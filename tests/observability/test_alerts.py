"""Alert rules: they load, fire when they should, and have runbooks."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import Metrics, MetricsSettings
from gateway.runtime.live import LiveSettings
from grafana import build
from tests.support.metric_names import STANDARD_LABELS, exported, labels_in
from tests.support.prometheus import ROOT, RULES
from tests.support.tools import clean_environment, require_tool

TESTS = sorted((ROOT / "grafana/alerts/tests").glob("*.yml"))
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}


def promtool(*arguments: str, given: bytes = b"") -> str:
    """Run promtool; a complaint fails the test."""
    done = subprocess.run(
        [require_tool("promtool"), *arguments], input=given, capture_output=True, env=clean_environment(), check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_prometheus_loads_the_rules():
    """Checked by promtool."""
    assert f"{len(ALERTS) + len(RECORDED)} rules found" in promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_pass_their_promtool_tests(path: Path):
    """Prometheus' own rule tests, with simulated time."""
    assert "SUCCESS" in promtool("test", "rules", str(path))


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_firing_and_a_silent_test(name: str):
    """One test expects it to fire, another expects it not to."""
    fires, silent = False, False
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for each in test.get("alert_rule_test", ()):
                if each["alertname"] == name:
                    fires, silent = fires or bool(each["exp_alerts"]), silent or not each["exp_alerts"]
            for each in test.get("promql_expr_test", ()):
                reported = " ".join(sample["labels"] for sample in each["exp_samples"])
                fires = fires or f'"{name}"' in reported
                asked = re.search(r'alertname=~?"([^"]+)"', each["expr"])
                silent = silent or (not reported and asked is not None and re.fullmatch(asked[1], name) is not None)
    assert fires
    assert silent


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_severity_summary_description_and_runbook(name: str):
    """The runbook URL is absolute, and a section of docs/alerts.md."""
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"]["summary"].endswith(".")
    assert alert["annotations"]["description"].endswith(".")
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert page == build.RUNBOOKS
    titles = re.findall(r"^## (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    assert anchor == name.lower()
    assert name in titles


def test_address_of_the_runbooks_is_a_setting_of_the_build():
    """Rules and their tests change together."""
    for path in (RULES, *TESTS):
        text = path.read_text()
        moved = build.with_runbooks(text, "https://wiki.example/gateway")
        assert moved.count("https://wiki.example/gateway#") == text.count("runbook_url: ")
        assert build.with_runbooks(moved, build.RUNBOOKS) == text


def test_every_runbook_belongs_to_an_alert():
    """Docs and rules name the same alerts."""
    assert set(re.findall(r"^## (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)) == ALERTS.keys()


def test_rules_use_exported_metrics_only():
    """An alert on an unknown name never fires."""
    known = exported() | {"up": set()} | {name: {"team", "window"} for name in RECORDED}
    for group in GROUPS:
        for rule in group["rules"]:
            text = re.sub(r'"[^"]*"', '""', rule["expr"])
            used = set(re.findall(r"\b(?:replicate_gateway[_:][\w:]+|process_\w+|up)\b", text))
            assert used
            assert used <= known.keys(), rule
            allowed = set().union(*(known[name] for name in used)) | STANDARD_LABELS
            assert labels_in(rule["expr"]) <= allowed, rule


async def test_promtool_accepts_the_metrics():
    """Names, units and help texts pass its linter."""
    metrics = Metrics(LiveSettings(MetricsSettings(teams=["alpha"], top_targets=5)), routes=["predictions.get"])
    metrics.answered("predictions.get", "GET", 200, 0.01)
    body, _ = await metrics.scrape("")
    ours = b"".join(line for line in body.splitlines(keepends=True) if b"replicate_gateway_" in line)
    assert promtool("check", "metrics", given=ours) == ""
