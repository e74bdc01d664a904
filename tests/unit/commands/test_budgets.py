"""`gateway usage adjust` and budgets: no team is locked out by a typing error."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import main
from gateway.commands.budgets import effects
from gateway.config import Team
from gateway.domain.quota import Counters
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
        assert "Team acme would get no more predictions that cost money:" in refused.stderr
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
def test_correction_of_a_tag_counts_in_its_budget_and_in_that_of_the_team(folder: Path):
    """Unknown tags are refused. A value that has a budget of its own is judged by that one."""
    per_tag = "[teams.per_tag]\nproject = { budget_usd_per_month = 1 }\n'project:a' = { budget_usd_per_day = 5 }\n"
    text = f"[tags]\nkeys = ['project']\n[[teams]]\nname = 'acme'\nbudget_usd_per_month = 20\n{per_tag}"
    (folder / "config.toml").write_text(text)
    assert "there is no tag 'team'" in adjust("1", "--tag", "team=a").stderr
    done = adjust("2", "--tag", "project=a")
    assert done.stdout.splitlines()[1:] == [
        "budget_usd_per_month: $2.00 of $20.00",
        "project=a budget_usd_per_day: $2.00 of $5.00",
    ]
    refused = adjust("2", "--tag", "project=b", answer="n\n")
    assert "Team acme would get no more predictions with these tags that cost money:" in refused.stderr
    assert "project=b budget_usd_per_month: $2.00 of $1.00, used up until " in refused.stderr
    assert "budget_usd_per_month: $3.00 of $20.00\n" in adjust("1").stdout


@given(spent=AMOUNTS, held=st.integers(0, 10**9), by=AMOUNTS, budget=st.integers(1, 10**6))
def test_budget_is_exhausted_by_what_crosses_it(spent: int, held: int, by: int, budget: int):
    """What is held for runs in progress counts, as it does for creates."""
    team = Team(name="acme", budget_usd_per_day=budget)
    (effect,) = effects(team, {"team/acme": Counters(day_microusd=spent, held_microusd=held)}, by, 1e9)
    limit = budget * 10**6
    assert effect.exhausts == (spent + held < limit <= spent + held + by)
    assert ("used up until 2001-09-10T00:00:00" in effect.text) == (spent + held + by >= limit)
