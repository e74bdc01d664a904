"""Dividing a rate among nodes by demand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.throttling.rules.division import divide, fair

AMOUNTS = st.floats(0, 1000, allow_subnormal=False)
DEMANDS = st.dictionaries(st.integers(1, 6), st.dictionaries(st.sampled_from("abc"), AMOUNTS), min_size=1)
WEIGHTS = st.fixed_dictionaries({name: st.floats(0.1, 10) for name in "abc"})


@given(DEMANDS, WEIGHTS, st.floats(0.1, 100), st.floats(0, 0.2), st.floats(0.5, 1))
def test_shares_are_the_whole_rate_and_none_is_below_the_floor(demands, weights, per_second, floor, total):
    parts = divide(demands, weights, per_second, floor=floor, total=total)
    assert sum(part.share for part in parts.values()) == pytest.approx(total)
    assert all(part.share >= min(floor, total / len(demands)) - 1e-9 for part in parts.values())


@given(DEMANDS, WEIGHTS, st.floats(0.1, 100))
def test_flow_gets_what_it_needs_or_its_weight_of_the_rest(demands, weights, per_second):
    """Over all nodes together, however its calls are spread over them."""
    parts = divide(demands, weights, per_second)
    needed = {name: sum(demand.get(name, 0.0) for demand in demands.values()) for name in weights}
    got = {name: sum(part.flows.get(name, 0.0) for part in parts.values()) for name in weights}
    unsatisfied = {name for name in weights if got[name] < needed[name] - 1e-6}
    for name in unsatisfied:
        for other in weights:
            assert got[name] / weights[name] >= got[other] / weights[other] - 1e-6
    assert sum(got.values()) == pytest.approx(min(per_second, sum(needed.values())), abs=1e-6)


@given(DEMANDS, WEIGHTS, st.floats(0.1, 100))
def test_share_covers_what_its_flows_get(demands, weights, per_second):
    for part in divide(demands, weights, per_second).values():
        assert part.share * per_second >= sum(part.flows.values()) - 1e-6


def test_team_on_three_nodes_gets_no_more_than_one_on_one_node():
    """Both have a backlog; the node with both teams gets two thirds."""
    parts = divide({1: {"red": 100, "blue": 100}, 2: {"blue": 100}, 3: {"blue": 100}}, {"red": 1, "blue": 1}, 12)
    assert [parts[node].share for node in (1, 2, 3)] == pytest.approx([8 / 12, 2 / 12, 2 / 12])
    assert parts[1].flows == pytest.approx({"red": 6, "blue": 2})


def test_half_of_what_nobody_needs_is_for_all_nodes():
    parts = divide({1: {"a": 2}, 2: {}}, {}, 10)
    assert [parts[node].share for node in (1, 2)] == pytest.approx([0.2 + 0.4 + 0.2, 0.2])


def test_idle_nodes_keep_the_floor_and_equal_nodes_get_equal_shares():
    assert divide({1: {"a": 50}, 2: {}, 3: {}}, {}, 10, floor=0.01)[1].share == pytest.approx(0.98)
    assert {part.share for part in divide({1: {}, 2: {}}, {}, 10).values()} == {0.5}
    assert divide({}, {}, 10) == {}


def test_fair_shares_of_what_is_too_little_are_by_weight():
    assert fair({"a": 100, "b": 100, "c": 1}, {"a": 3, "b": 1, "c": 1}, 9) == pytest.approx({"c": 1, "a": 6, "b": 2})
