"""The fair queue: shares by weight, none starved, none late."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from gateway.throttling.rules.fair_queue import FairQueue, QueuePosition

FOREVER = float("inf")
SIXTEEN = {f"team-{number:02}": float(1 + number % 8) for number in range(16)}


def queue(weights: dict[str, float] | None = None, *, max_waiting: int = 1000) -> FairQueue:
    return FairQueue(weights or SIXTEEN, max_waiting=max_waiting)


def named(it: FairQueue, *names: str) -> dict[QueuePosition, str]:
    """Let flows join in this order; return who is who."""
    return {it.join(name, FOREVER): name for name in names}


def drained(it: FairQueue) -> list[QueuePosition]:
    order = []
    while (place := it.next()) is not None:
        order.append(place)
    return order


def test_turns_within_a_flow_are_in_arrival_order():
    """Whatever the weight."""
    it = queue({"a": 3.0})
    places = [it.join("a", FOREVER) for _ in range(20)]
    assert drained(it) == places
    assert it.next() is None


def test_sixteen_busy_teams_share_by_weight():
    """Of 7200 turns each team gets its share to a twentieth, and of any hundred too, to two turns."""
    it = queue()
    owners = {it.join(name, FOREVER): name for name in SIXTEEN for _ in range(3)}
    total = sum(SIXTEEN.values())
    turns: list[str] = []
    for _ in range(7200):
        place = it.next()
        assert place is not None
        name = owners.pop(place)
        owners[it.join(name, FOREVER)] = name
        turns.append(name)
    for name, weight in SIXTEEN.items():
        assert Counter(turns)[name] == pytest.approx(7200 * weight / total, rel=0.05)
        for start in range(0, 7200, 100):
            assert abs(Counter(turns[start : start + 100])[name] - 100 * weight / total) <= 2


def test_quiet_team_waits_less_than_a_round():
    """Fifteen teams have queued for an hour; the sixteenth's first create comes after at most one of each."""
    it = queue()
    quiet, *busy = sorted(SIXTEEN, key=SIXTEEN.__getitem__)
    for _ in range(50):
        for name in busy:
            it.join(name, FOREVER)
    for _ in range(333):
        it.next()
    first = it.join(quiet, FOREVER)
    before = drained(it).index(first)
    assert before < len(busy)


def test_unused_shares_go_to_the_others():
    """Two of three teams are quiet: the third has every turn, and owes nothing when they come back."""
    it = queue({"a": 1.0, "b": 1.0, "c": 6.0})
    named(it, *"aaaaaaaaaaaa")
    for _ in range(6):
        it.next()
    back = named(it, *"bbbb")
    order = ["b" if place in back else "a" for place in drained(it)]
    assert order[:8].count("b") == 4


def test_all_flows_are_equal_after_an_idle_time():
    """The flow served last before everyone went quiet is not put back for it."""
    it = queue({"slow": 0.01, "other": 1.0})
    named(it, "slow")
    it.next()
    first = it.join("slow", FOREVER)
    it.join("other", FOREVER)
    assert it.next() is first


def test_leaving_costs_the_others_no_turn():
    """A thousand of one team disconnect; the next turns go to those who remain."""
    it = queue({"a": 1.0, "b": 1.0})
    left = [it.join("a", FOREVER) for _ in range(1000)]
    there = [it.join("b", FOREVER) for _ in range(3)]
    assert it.is_full("a")
    for place in left:
        it.leave(place)
        it.leave(place)
    assert (len(it), it.waiting("a"), it.is_full("a")) == (3, 0, False)
    assert drained(it) == there


def test_leaving_and_returning_gains_nothing():
    """A team whose callers disconnect and retry all the time gets what one gets whose callers wait."""
    it = queue({"a": 1.0, "b": 1.0})
    turns: Counter[str] = Counter()
    waits = named(it, *"bbbbb")
    for _ in range(400):
        restless = it.join("a", FOREVER)
        it.leave(restless)
        restless = it.join("a", FOREVER)
        place = it.next()
        assert place is not None
        turns[waits.pop(place, "a")] += 1
        it.leave(restless)
        while it.waiting("b") < 5:
            waits |= named(it, "b")
    assert abs(turns["a"] - turns["b"]) <= 2


def test_returned_turn_keeps_its_place():
    """Upstream refused a create: it is not put behind the team's others, nor behind one refused after it."""
    it = queue({"a": 1.0})
    first, second, third = (it.join("a", FOREVER) for _ in range(3))
    assert (it.next(), it.next()) == (first, second)
    again = [it.join("a", FOREVER, returned=True) for _ in range(2)]
    assert drained(it) == [*again, third]


def test_expired_waiters_are_reported():
    """Each waits until its own deadline; one that was served or has left is not late."""
    it = queue({"a": 1.0, "b": 1.0})
    early, served, left, late = (it.join("a", at) for at in (5.0, 6.0, 7.0, 8.0))
    it.leave(left)
    assert it.next_deadline() == 5.0
    assert it.expired(4.9) == []
    assert it.expired(5.0) == [early]
    assert it.next() is served
    assert it.next_deadline() == 8.0
    assert it.expired(100.0) == [late]
    assert (it.next_deadline(), len(it), it.next()) == (None, 0, None)


def test_abandoned_entries_do_not_accumulate():
    """Callers that come and go for hours while upstream is paused leave nothing behind."""
    it = queue({"a": 1.0})
    stays = it.join("a", FOREVER)
    for _ in range(5000):
        it.leave(it.join("a", FOREVER))
    assert len(it._deadlines) < 200
    assert drained(it) == [stays]


@given(weights=st.lists(st.integers(1, 8), min_size=2, max_size=8), turns=st.integers(1, 200))
def test_shares_differ_by_at_most_one_turn_each(weights, turns):
    """While two flows wait, what they got, by weight, differs by less than a turn of each (SFQ's theorem 1)."""
    flows = {str(index): float(weight) for index, weight in enumerate(weights)}
    it = queue(flows)
    owners = {it.join(name, FOREVER): name for name in flows for _ in range(turns)}
    got: Counter[str] = Counter()
    for _ in range(turns):
        place = it.next()
        assert place is not None
        got[owners[place]] += 1
        shares = {name: Fraction(got[name], int(weight)) for name, weight in flows.items()}
        for one, other in ((a, b) for a in flows for b in flows if a < b):
            allowed = Fraction(1, int(flows[one])) + Fraction(1, int(flows[other]))
            assert abs(shares[one] - shares[other]) <= allowed + Fraction(1, 10**9)


class NobodyStarves(RuleBasedStateMachine):
    """Whatever comes, goes and expires: places are given out in order, once, and soon enough."""

    places = Bundle("places")

    @initialize(weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), min_size=1, max_size=5))
    def begin(self, weights):
        self.weights = {str(index): weight for index, weight in enumerate(weights)}
        self.it = queue(self.weights)
        self.waiting: dict[str, list[QueuePosition]] = {name: [] for name in self.weights}
        self.passed_over: Counter[str] = Counter()
        self.now = 0.0

    @rule(target=places, flow=st.integers(0, 4), patience=st.integers(1, 50))
    def join(self, flow, patience):
        name = str(flow % len(self.weights))
        place = self.it.join(name, self.now + patience)
        self.waiting[name].append(place)
        return name, place

    @rule(gone=consumes(places))
    def leave(self, gone):
        name, place = gone
        self.it.leave(place)
        if place in self.waiting[name]:
            self.waiting[name].remove(place)
        if not self.waiting[name]:
            self.passed_over[name] = 0

    @rule()
    def give(self):
        place = self.it.next()
        if place is None:
            assert not any(self.waiting.values())
            return
        (name,) = (name for name, waiting in self.waiting.items() if place in waiting)
        assert self.waiting[name].pop(0) is place
        for other, waiting in self.waiting.items():
            self.passed_over[other] = self.passed_over[other] + 1 if waiting and other != name else 0
        for other, waiting in self.waiting.items():
            # While it waits for one turn of its own, each other flow has no more than its weight in turns, and two.
            most = sum(weight / self.weights[other] + 2 for at, weight in self.weights.items() if at != other)
            assert not waiting or self.passed_over[other] <= most

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds):
        self.now += seconds
        late = self.it.expired(self.now)
        assert all(place.until <= self.now for place in late)
        for name, waiting in self.waiting.items():
            self.waiting[name] = [place for place in waiting if place not in late]
            assert all(place.until > self.now for place in self.waiting[name])
            if not self.waiting[name]:
                self.passed_over[name] = 0

    @invariant()
    def it_adds_up(self):
        if hasattr(self, "it"):
            assert len(self.it) == sum(map(len, self.waiting.values()))
            deadlines = [place.until for waiting in self.waiting.values() for place in waiting]
            assert self.it.next_deadline() == min(deadlines, default=None)
            assert len(self.it._schedule) <= len(self.weights)
            assert all(a.number < b.number for waiting in self.waiting.values() for a, b in pairwise(waiting))


TestNobodyStarves = NobodyStarves.TestCase


def test_new_weights_apply_from_the_next_turn():
    """Waiting entries keep their places; a flow that is no longer named is served as it was."""
    it = queue({"a": 1.0, "gone": 1.0})
    who = named(it, *["a"] * 30, "gone")
    it.reweigh({"a": 1.0, "b": 3.0})
    who |= named(it, *["b"] * 30)
    order = [who[place] for place in drained(it)]
    assert "gone" in order[:5]
    shares = Counter(order[5:25])
    assert 14 <= shares["b"] <= 16
