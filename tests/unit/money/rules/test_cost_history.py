"""Costs of the last runs: bounded, and the same in whatever order they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.money import Amounts
from gateway.domain.records import Status
from gateway.money.rules.cost_history import ENOUGH_RUNS, Recent, Sample, Typical, is_representative

SAMPLES = st.builds(
    Sample,
    ended_at=st.integers(0, 50).map(float),
    run_id=st.text("ab", min_size=1, max_size=3),
    microusd=st.integers(0, 10**6),
    milliseconds=st.integers(0, 10**5),
)
TOLD = st.lists(st.tuples(st.sampled_from("xyz"), SAMPLES), max_size=40)


def sample(number: int, microusd: int | None = None) -> Sample:
    return Sample(float(number), f"run{number}", number if microusd is None else microusd, number * 2)


def knowing(reported: list[tuple[str, Sample]], **bounds: int) -> Recent:
    recent = Recent(**bounds)
    for target, each in reported:
        recent.add(target, each)
    return recent


def known(recent: Recent) -> set[tuple[str, Sample]]:
    return set(recent)


def test_too_few_runs_give_no_estimate() -> None:
    """The first run of a target may be a mistake, or its slowest."""
    recent = knowing([("x", sample(number)) for number in range(ENOUGH_RUNS - 1)])
    assert recent.typical("x") is None
    assert recent.typical("y") is None
    recent.add("x", sample(ENOUGH_RUNS))
    assert recent.typical("x") is not None


def test_p95_is_a_value_that_occurred() -> None:
    """Of 1 to 100 it is 95, and the median 50."""
    recent = knowing([("x", sample(number)) for number in range(1, 101)])
    assert recent.typical("x") == Typical(p95=Amounts(95, 190), median=Amounts(50, 100))


def test_new_runs_replace_old_ones() -> None:
    """A model that has become faster is soon known to be."""
    recent = knowing([("x", sample(number, 1000)) for number in range(100)])
    for number in range(100, 200):
        recent.add("x", sample(number, 10))
        recent.typical("x")
    assert recent.typical("x") == Typical(p95=Amounts(10, 2 * 194), median=Amounts(10, 2 * 149))
    assert len(known(recent)) == 100


def test_recently_used_targets_are_kept() -> None:
    """Any number of names costs bounded memory."""
    recent = knowing([(f"t{number}", sample(number)) for number in range(10)], most_targets=3)
    assert len(recent) == 3
    assert {target for target, _ in recent} == {"t7", "t8", "t9"}
    recent.add("t7", sample(20))
    recent.add("new", sample(21))
    assert {target for target, _ in recent} == {"t7", "t9", "new"}


def test_repeated_run_counts_once() -> None:
    """A ledger that is read again after a restart changes nothing."""
    recent = knowing([("x", sample(1))] * 10)
    assert len(known(recent)) == 1


@pytest.mark.parametrize("status", Status)
def test_only_completed_runs_count(status: Status) -> None:
    """A cancelled one tells how patient its caller was."""
    assert is_representative(status) is (status in (Status.SUCCEEDED, Status.FAILED))


@given(TOLD, st.randoms(use_true_random=False))
def test_order_of_runs_makes_no_difference(reported: list[tuple[str, Sample]], random: object) -> None:
    """Webhooks and polls bring ends in any order."""
    shuffled = list(reported)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = knowing(reported, most_runs=7), knowing(shuffled, most_runs=7)
    assert known(one) == known(other)
    for target in "xyz":
        assert one.typical(target) == other.typical(target)


@given(st.lists(st.integers(0, 10**9), min_size=ENOUGH_RUNS, max_size=100))
def test_percentiles_are_by_nearest_rank(values: list[int]) -> None:
    """At least as many per cent of the values are no larger, and fewer are smaller."""
    samples = [Sample(float(n), f"r{n}", value, 0) for n, value in enumerate(values)]
    typical = knowing([("x", each) for each in samples]).typical("x")
    assert typical is not None
    for percent, found in ((50, typical.median.microusd), (95, typical.p95.microusd)):
        assert found in values
        assert sum(value <= found for value in values) * 100 >= percent * len(values)
        assert sum(value < found for value in values) * 100 < percent * len(values)


@given(st.lists(SAMPLES, min_size=ENOUGH_RUNS, max_size=60, unique_by=lambda each: (each.ended_at, each.run_id)))
def test_estimate_lies_between_occurred_values(samples: list[Sample]) -> None:
    """The P95 is no less than the median, and both occurred."""
    typical = knowing([("x", each) for each in samples]).typical("x")
    assert typical is not None
    costs, lengths = {each.microusd for each in samples}, {each.milliseconds for each in samples}
    assert min(costs) <= typical.median.microusd <= typical.p95.microusd <= max(costs)
    assert {typical.median.microusd, typical.p95.microusd} <= costs
    assert {typical.median.milliseconds, typical.p95.milliseconds} <= lengths
