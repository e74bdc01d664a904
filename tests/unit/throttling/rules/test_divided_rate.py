"""One rate on several nodes: whatever they do, they never exceed it together."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from gateway.domain import rates
from gateway.domain.rates import Rate
from gateway.throttling.rules import divided_rate, node_share
from gateway.throttling.rules.divided_rate import DividedRate, Exchange, Holding

RATE = Rate(60.0, 12)
ROUNDING = 1e-6


class Node:
    """What a node knows of its own share."""

    def __init__(self) -> None:
        self.share, self.full_at, self.number = 0.0, 0.0, 0


class Nodes(RuleBasedStateMachine):
    """Three nodes exchange shares, take tokens, miss answers and die; one bucket of the whole rate is the measure."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.known: DividedRate = divided_rate.new("x", RATE, self.now)
        self.nodes: dict[int, Node] = {}
        self.held: dict[int, Holding] = {}
        self.late: list[tuple[int, Exchange]] = []
        self.whole = rates.FULL
        self.last = 0

    @initialize()
    def start(self) -> None:
        for _ in range(3):
            self._join()

    def _join(self) -> None:
        self.last += 1
        self.nodes[self.last], self.held[self.last] = Node(), Holding(node=self.last)

    def _taken(self) -> None:
        assert rates.wait(self.whole, RATE, self.now) <= ROUNDING
        self.whole = rates.take(self.whole, RATE, self.now)

    def _pick(self, index: int) -> int:
        return sorted(self.nodes)[index % len(self.nodes)]

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        index=st.integers(0, 9),
        wanted=st.floats(0, 1),
        reserve=st.sampled_from([0.0, 0.125]),
        outcome=st.integers(0, 5),
    )
    def exchange(self, index: int, wanted: float, reserve: float, outcome: int) -> None:
        """0: the step is not done; 1: its answer is lost; 2: it is done later; otherwise all goes well."""
        number = self._pick(index)
        node = self.nodes[number]
        node.number += 1
        kept, returned = min(node.share, wanted), 0.0
        if kept < node.share:
            node.full_at, returned = node_share.resize(node.full_at, RATE, node.share, self.now, to=kept)
            node.share = kept
        asked = Exchange(
            name="x", rate=RATE, number=node.number, kept=kept, returned=returned, wanted=wanted, reserve=reserve
        )
        if outcome == 2:
            self.late.append((number, asked))
        elif outcome != 0:
            granted = self._carry_out(number, asked)
            if outcome != 1:
                node.full_at, _ = node_share.resize(
                    node.full_at, RATE, node.share, self.now, to=granted.share, tokens=granted.tokens
                )
                node.share = granted.share

    def _carry_out(self, number: int, asked: Exchange) -> divided_rate.Granted:
        known = divided_rate.filled(self.known, RATE, self.now)
        self.known, self.held[number], granted = divided_rate.exchange(known, self.held[number], asked)
        return granted

    @rule()
    def arrive_late(self) -> None:
        """The step of an exchange that its node has given up is done after all."""
        if self.late:
            number, asked = self.late.pop()
            if number in self.held:
                self._carry_out(number, asked)

    @rule(index=st.integers(0, 9), count=st.integers(1, 15))
    def take_from_share(self, index: int, count: int) -> None:
        node = self.nodes[self._pick(index)]
        for _ in range(count):
            if node_share.wait(node.full_at, RATE, node.share, self.now) > 0:
                return
            node.full_at = node_share.take(node.full_at, RATE, node.share, self.now)
            self._taken()

    @rule(count=st.integers(1, 15))
    def take_from_record(self, count: int) -> None:
        self.known = divided_rate.filled(self.known, RATE, self.now)
        for _ in range(count):
            if divided_rate.wait(self.known, self.now) > 0:
                return
            self.known = divided_rate.take(self.known)
            self._taken()

    @rule(index=st.integers(0, 9))
    def die(self, index: int) -> None:
        """The node is silent until its lease has ended; then its share is free, and another one joins."""
        number = self._pick(index)
        del self.nodes[number]
        known = divided_rate.filled(self.known, RATE, self.now)
        self.known = divided_rate.without(known, [self.held.pop(number)])
        self._join()

    @invariant()
    def shares_are_at_most_the_rate(self) -> None:
        assert self.known.free + sum(each.share for each in self.held.values()) == pytest.approx(1.0)
        assert all(node.share <= self.held[number].share + ROUNDING for number, node in self.nodes.items())
        tokens = divided_rate.filled(self.known, RATE, self.now).tokens
        levels = [node_share.level(each.full_at, RATE, each.share, self.now) for each in self.nodes.values()]
        assert tokens + sum(levels) <= RATE.burst + ROUNDING


Nodes.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNodes = Nodes.TestCase


def ask(number: int, wanted: float, kept: float = 0.0, **more: float) -> Exchange:
    return Exchange(name="x", rate=RATE, number=number, kept=kept, wanted=wanted, **more)


def test_share_comes_with_its_tokens_and_goes_back_with_them() -> None:
    known, held, granted = divided_rate.exchange(divided_rate.new("x", RATE, 0.0), Holding(node=1), ask(1, 0.5))
    assert (known.free, known.tokens, held.share, granted.tokens) == (0.5, 6.0, 0.5, 6.0)
    known, held, granted = divided_rate.exchange(known, held, ask(2, 0.25, kept=0.25, returned=3.0))
    assert (known.free, known.tokens, held.share, granted) == (0.75, 9.0, 0.25, divided_rate.Granted(0.25, 0.0))


def test_nobody_gets_the_reserve_or_what_another_node_holds() -> None:
    known, _, granted = divided_rate.exchange(
        divided_rate.new("x", RATE, 0.0), Holding(node=1), ask(1, 1.0, reserve=0.25)
    )
    assert granted.share == 0.75
    _, _, granted = divided_rate.exchange(known, Holding(node=2), ask(1, 1.0))
    assert granted.share == 0.25


def test_repeated_exchange_changes_nothing() -> None:
    known, held, _ = divided_rate.exchange(divided_rate.new("x", RATE, 0.0), Holding(node=1), ask(2, 0.5))
    again = divided_rate.exchange(known, held, ask(2, 0.0, returned=5.0))
    assert again == (known, held, divided_rate.Granted(0.5))


def test_share_of_a_dead_node_is_free_and_its_tokens_are_lost() -> None:
    known, held, _ = divided_rate.exchange(divided_rate.new("x", RATE, 0.0), Holding(node=1), ask(1, 1.0))
    known = divided_rate.without(known, [held])
    assert (known.free, known.tokens) == (1.0, 0.0)
    assert divided_rate.filled(known, RATE, 3.0).tokens == 3.0


def test_queued_creates_leave_half_of_what_is_free() -> None:
    known = divided_rate.new("x", RATE, 0.0)
    for _ in range(6):
        assert divided_rate.wait(known, 0.0, spare=6) == 0
        known = divided_rate.take(known)
    assert divided_rate.wait(known, 0.0, spare=6) == pytest.approx(1.0)
    assert divided_rate.wait(known, 0.0) == 0


def test_record_whose_share_is_too_small_has_no_token() -> None:
    known, _, _ = divided_rate.exchange(divided_rate.new("x", RATE, 0.0), Holding(node=1), ask(1, 1.0))
    assert divided_rate.wait(known, 0.0) == math.inf
    assert node_share.wait(0.0, RATE, 0.01, 5.0) == math.inf


def test_pause_holds_for_every_node_and_one_request_goes_first_afterwards() -> None:
    slow = Rate(6.0, 1)
    known = divided_rate.throttled(divided_rate.new("x", RATE, 0.0), slow, 5.0, 7, 0.0)
    assert (known.throttles, known.throttled_by) == (1, 7)
    assert divided_rate.wait(divided_rate.filled(known, slow, 2.0), 2.0) == 3.0
    known = divided_rate.filled(known, slow, 5.0)
    assert divided_rate.wait(known, 5.0) == 0
    known = divided_rate.take(known)
    assert divided_rate.wait(known, 5.0) == pytest.approx(10.0)


def test_nodes_take_turns_by_what_their_teams_would_get() -> None:
    """Red on node 1, blue on all three: red gets half, and each node what its teams get."""
    rate, now = Rate(6.0, 1), 0.0
    demands = {1: {"red": 9.0, "blue": 9.0}, 2: {"blue": 9.0}, 3: {"blue": 9.0}}
    held = {node: Holding(node=node, demand=demand) for node, demand in demands.items()}
    known, count = divided_rate.new("x", rate, now), dict.fromkeys(held, 0)
    while sum(count.values()) < 300:
        now += 0.5
        for node in held:
            known = divided_rate.filled(known, rate, now)
            known, held[node], seconds = divided_rate.take_turn(known, list(held.values()), node, {}, now)
            count[node] += seconds == 0
    assert count == {1: pytest.approx(200, abs=4), 2: pytest.approx(50, abs=3), 3: pytest.approx(50, abs=3)}


def test_node_that_stops_asking_loses_its_turn_after_two_seconds() -> None:
    rate = Rate(60.0, 1)
    gone = Holding(node=1, demand={"red": 1.0}, waits_at=0.0)
    known = replace(divided_rate.new("x", rate, 0.0), turn=5.0)
    here = Holding(node=2, demand={"red": 1.0})
    assert divided_rate.take_turn(known, [gone, here], 2, {}, 1.0)[2] > 0
    assert divided_rate.take_turn(known, [gone, here], 2, {}, 2.5)[2] == 0


def test_tokens_come_after_the_stores_clock_has_jumped_back():
    """From then on at the rate, and none that was there before twice."""
    known = divided_rate.take(divided_rate.new("x", RATE, 7200.0), 10.0)
    known = divided_rate.filled(known, RATE, 3600.0)
    assert known.tokens == 2.0
    assert divided_rate.filled(known, RATE, 3605.0).tokens == 7.0
    paused = divided_rate.throttled(known, RATE, 60.0, 1, 3600.0)
    assert divided_rate.filled(paused, RATE, 3630.0).tokens == paused.tokens
    assert divided_rate.filled(paused, RATE, 3665.0).tokens == paused.tokens + 5.0
