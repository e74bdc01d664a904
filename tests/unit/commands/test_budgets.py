"""`gateway usage adjust` and budgets: no team is locked out by a typing error."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import main
from gateway.commands.budgets import effects, subjects_of
from gateway.domain.limits import NO_LIMITS, Allowance, Limits
from gateway.domain.quota import Counters
from gateway.domain.teams import Team
from tests.support.records import make_store

AMOUNTS = st.integers(-(10**12), 10**12)


@pytest.fixture
def config(folder: Path) -> Path:
    (folder / "config.toml").write_text("[[teams]]\nname = 'acme'\nbudget_usd_per_month = 20\n[[teams]]\nname = 'b'\n")
    make_store(folder)
    return folder


def adjust(amount: str, *more: str, answer: str = "", team: str = "acme") -> Result:
    arguments = ["usage", "adjust", team, amount, "--reason", "typo", *more]
    return CliRunner().invoke(main, arguments, env={"GATEWAY_CONFIG": None}, input=answer, prog_name="gateway")


@pytest.mark.usefixtures("config")
def test_correction_that_uses_up_a_budget_asks_first():
    """Without an answer nothing is recorded. With --yes it is done, and the new state is printed."""
    for answer in ("", "n\n"):
        refused = adjust("1000", answer=answer)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "No more predictions that cost money for all that these budgets limit (team acme):" in refused.stderr
        assert "budget_usd_per_month: $1000.00 of $20.00, used up until " in refused.stderr
    assert "budget_usd_per_month: $1.50 of $20.00\n" in adjust("1.50").stdout
    done = adjust("18.50", answer="y\n")
    assert (done.exit_code, "spend raised by $18.500000." in done.stdout) == (0, True)
    assert "budget_usd_per_month: $20.00 of $20.00, used up until " in done.stdout


@pytest.mark.usefixtures("config")
def test_nothing_is_asked_where_the_answer_changes_nothing():
    """A budget that is used up already, a reduction, a team without budgets, --yes."""
    assert adjust("100", "--yes").exit_code == 0
    assert adjust("100").exit_code == 0
    reduced = adjust("-250")
    assert (reduced.exit_code, reduced.stdout.splitlines()[1]) == (0, "budget_usd_per_month: -$50.00 of $20.00")
    other = adjust("1000", team="b")
    assert (other.exit_code, other.stdout) == (0, "Team b: spend raised by $1000.000000.\n")


@pytest.mark.usefixtures("config")
def test_dry_run_changes_nothing():
    """It prints what the correction itself would print, also where that would ask."""
    tried = adjust("1000", "--dry-run")
    assert tried.exit_code == 0
    assert "spend would be raised by $1000.000000.\nbudget_usd_per_month: $1000.00 of $20.00, used up" in tried.stdout
    assert tried.stderr == "Nothing was changed.\n"
    assert "budget_usd_per_month: $1.00 of $20.00\n" in adjust("1").stdout


KEYED = """
[[teams]]
name = "acme"
budget_usd_per_month = 20
per_user = { budget_usd_per_day = 2 }
[[teams.keys]]
name = "web"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
budget_usd_per_day = 5
per_user = { budget_usd_per_month = 3 }
"""


def test_correction_of_a_key_and_a_user_counts_in_their_budgets(config: Path):
    """And in their usage; the audit log names them."""
    (config / "config.toml").write_text(KEYED)
    both = ("--key", "acme/web", "--user", "ann")
    for amount in ("1.50", "0.25"):
        done = adjust(amount, *both)
    assert done.stdout.splitlines() == [
        "Team acme: spend raised by $0.250000.",
        "budget_usd_per_month: $1.75 of $20.00",
        "key acme/web: budget_usd_per_day: $1.75 of $5.00",
        "user ann: budget_usd_per_day: $1.75 of $2.00",
        "user ann of the key: budget_usd_per_month: $1.75 of $3.00",
    ]
    asked = adjust("0.25", "--user", "ann")
    assert asked.exit_code == 1
    assert "user ann: budget_usd_per_day: $2.00 of $2.00, used up until " in asked.stderr
    for by, name in (("key", "acme/web"), ("user", "ann")):
        reported = CliRunner().invoke(main, ["usage", "--by", by, "--format", "json"], prog_name="gateway")
        (row,) = json.loads(reported.stdout)["rows"]
        assert (row[by], row["spend_microusd"]) == (name, 1_750_000)
    audit = CliRunner().invoke(main, ["audit", "--format", "json"], prog_name="gateway")
    assert '"key": "acme/web"' in audit.stdout
    assert '"user": "ann"' in audit.stdout


def test_correction_of_a_tag_counts_in_its_budget(config: Path):
    """Unknown tags are refused. A value that has a budget of its own is judged by that one."""
    per_tag = "[teams.per_tag]\nproject = { budget_usd_per_month = 1 }\n'project:a' = { budget_usd_per_day = 5 }\n"
    text = f"[tags]\nkeys = ['project']\n[[teams]]\nname = 'acme'\nbudget_usd_per_month = 20\n{per_tag}"
    (config / "config.toml").write_text(text)
    assert "there is no tag 'team'" in adjust("1", "--tag", "team=a").stderr
    assert adjust("2", "--tag", "project=a").stdout.splitlines()[1:] == [
        "budget_usd_per_month: $2.00 of $20.00",
        "tag project=a: budget_usd_per_day: $2.00 of $5.00",
    ]
    refused = adjust("2", "--tag", "project=b", answer="n\n")
    assert "for all that these budgets limit (tag):" in refused.stderr
    assert "tag project=b: budget_usd_per_month: $2.00 of $1.00, used up until " in refused.stderr
    audit = CliRunner().invoke(main, ["audit", "--format", "json"], prog_name="gateway")
    assert '"project": "a"' in audit.stdout


@pytest.mark.usefixtures("config")
def test_correction_of_an_unknown_key_is_refused():
    """A typing error would be a line of the ledger for ever."""
    refused = adjust("1", "--key", "nobody")
    assert refused.exit_code == 2
    assert "team acme has no key 'nobody'" in refused.stderr
    assert adjust("1", "--user", "").exit_code == 2


@given(spent=AMOUNTS, held=st.integers(0, 10**9), by=AMOUNTS, budget=st.integers(1, 10**6))
def test_budget_is_exhausted_by_what_crosses_it(spent: int, held: int, by: int, budget: int):
    """What is held for runs in progress counts, as it does for creates."""
    team = Team(name="acme", scopes=frozenset(), allowance=Allowance(own=Limits(microusd_per_day=budget * 10**6)))
    meters = {"team/acme": Counters(day_microusd=spent, held_microusd=held)}
    (effect,) = effects(subjects_of(team, "", NO_LIMITS, None), meters, by, 1e9)
    limit = budget * 10**6
    assert effect.exhausts == (spent + held < limit <= spent + held + by)
    assert ("used up until 2001-09-10T00:00:00" in effect.text) == (spent + held + by >= limit)
