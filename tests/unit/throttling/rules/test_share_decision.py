"""Which share a node should have, and whether that is worth a step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain.rates import Rate
from gateway.throttling.rules import divided_rate
from gateway.throttling.rules.divided_rate import Holding, KnownRate
from gateway.throttling.rules.share_decision import RESERVE, Need, decide, is_divisible

RATE = Rate(600.0, 100)


def known(free: float, *holdings: Holding, ended: float = 0.0) -> KnownRate:
    return KnownRate(replace(divided_rate.new("x", RATE, 0.0), free=free), holdings, ended)


def held(node: int, share: float, demand: float = 0.0) -> Holding:
    return Holding(node=node, share=share, demand={"": demand} if demand else {})


def test_node_that_has_what_it_should_have_does_nothing():
    need = Need(rate=RATE, share=0.5, demand={"": 5.0})
    decision = decide(need, known(0.0, held(1, 0.5, 5.0), held(2, 0.5, 5.0)), 1, 2)
    assert (decision.is_step, decision.is_short, decision.kept, decision.wanted) == (False, False, 0.5, 0.5)


def test_node_that_has_too_much_gives_it_back_and_the_other_waits_for_it():
    rate = known(0.0, held(1, 1.0, 5.0), held(2, 0.0, 5.0))
    decision = decide(Need(rate=RATE, share=1.0, demand={"": 5.0}), rate, 1, 2)
    assert (decision.kept, decision.wanted, decision.is_step) == (0.5, 0.5, True)
    decision = decide(Need(rate=RATE, share=0.0, demand={"": 5.0}), rate, 2, 2)
    assert (decision.wanted, decision.is_step, decision.is_short) == (0.0, False, True)


def test_share_of_a_node_that_has_ended_counts_as_free():
    decision = decide(Need(rate=RATE, share=0.5, demand={"": 5.0}), known(0.0, held(1, 0.5, 5.0), ended=0.5), 1, 1)
    assert (decision.wanted, decision.is_short) == (1.0, False)


def test_reserve_is_nobodys():
    decision = decide(Need(rate=RATE, share=0.0, demand={"": 5.0}, reserve=RESERVE), known(1.0), 1, 2)
    assert decision.wanted == pytest.approx(0.875)


def test_rate_that_is_too_small_and_one_that_is_not_used_are_given_back():
    assert is_divisible(Rate(60.0, 12), 3)
    assert not is_divisible(Rate(60.0, 11), 3)
    small = Need(rate=Rate(60.0, 11), share=0.5, demand={"": 5.0})
    assert decide(small, known(0.5, held(1, 0.5, 5.0)), 1, 3).kept == 0.0
    idle = Need(rate=RATE, share=0.5, demand={}, is_idle=True)
    decision = decide(idle, known(0.5, held(1, 0.5, 5.0)), 1, 2)
    assert (decision.kept, decision.wanted, decision.is_step) == (0.0, 0.0, True)
    assert not decide(idle, known(0.5, held(1, 0.0)), 1, 2).is_step or idle.share


def test_standing_share_counts_nodes_without_a_demand():
    rate = known(0.0, held(1, 1.0, 50.0), held(2, 0.0))
    need = Need(rate=RATE, share=1.0, demand={"": 50.0})
    assert decide(need, rate, 1, 2).kept == 1.0
    assert decide(replace(need, is_standing=True), rate, 1, 2).kept == pytest.approx(0.99)


def test_small_change_of_a_demand_is_not_told():
    rate = known(0.0, held(1, 1.0, 5.0))
    assert not decide(Need(rate=RATE, share=1.0, demand={"": 5.3}), rate, 1, 1).is_step
    assert decide(Need(rate=RATE, share=1.0, demand={"": 8.0}), rate, 1, 1).is_step
    assert decide(Need(rate=RATE, share=1.0, demand={}), rate, 1, 1).is_step
    assert decide(Need(rate=RATE, share=0.0, demand={}), None, 1, 1).is_step


@given(
    st.dictionaries(st.integers(1, 5), st.floats(0, 50), min_size=1),
    st.dictionaries(st.integers(1, 5), st.floats(0.0, 0.3)),
)
def test_nodes_that_carry_out_their_decisions_come_to_rest(demands, shares):
    """With demands that stay, nobody has anything left to do after two rounds, and all of the rate is used."""
    nodes = {node: held(node, shares.get(node, 0.0) if len(shares) < 4 else 0.0, 0.0) for node in demands}
    rate = replace(divided_rate.new("x", RATE, 0.0), free=1.0 - sum(each.share for each in nodes.values()))
    for _ in range(4):
        steps = 0
        for number, (node, demand) in enumerate(demands.items()):
            now = KnownRate(rate, list(nodes.values()))
            need = Need(rate=RATE, share=nodes[node].share, demand={"": demand}, is_standing=True)
            decision = decide(need, now, node, len(nodes))
            if decision.is_step:
                steps += 1
                asked = divided_rate.Exchange(
                    name="x",
                    rate=RATE,
                    number=nodes[node].number + 1 + number,
                    kept=decision.kept,
                    wanted=decision.wanted,
                    demand=need.demand,
                )
                rate, nodes[node], _ = divided_rate.exchange(rate, nodes[node], asked)
    assert steps == 0
    assert rate.free < 0.06
