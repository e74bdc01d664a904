"""Who is served next."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.webhooks.rules.slots import DeliverySlots, Job, Slots

SLOTS = Slots(total=6, per_receiver=2, per_team=4)


def job(team: str, receiver: str, key: str, work: int = 0, *, is_urgent: bool = False) -> Job[int]:
    return Job(team, receiver, key, work, is_urgent)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("12345")), st.just("take"),
            st.integers(0, 5),
        )
    )
)  # fmt: skip
def test_slots_are_limited_ordered_and_fair(steps: list):
    """However jobs come and end: no more at once than allowed, one of a key at a time, each of them once."""
    lanes: DeliverySlots[int] = DeliverySlots(SLOTS)
    put, running, served = 0, [], []

    def take() -> bool:
        taken = lanes.take()
        if taken is None:
            return False
        assert taken.key not in [each.key for each in running]
        running.append(taken)
        served.append(taken)
        assert len(running) <= SLOTS.total
        assert max(Counter(each.receiver for each in running).values()) <= SLOTS.per_receiver
        assert max(Counter(each.team for each in running).values()) <= SLOTS.per_team
        return True

    for step in steps:
        if step == "take":
            take()
        elif isinstance(step, int):
            if step < len(running):
                lanes.done(running.pop(step))
        else:
            # A key belongs to one receiver: a prediction has one webhook.
            team, receiver, key = step
            lanes.put(job(team, receiver, f"{team}{receiver}{key}", put))
            put += 1
        assert lanes.running == len(running)
        assert lanes.waiting == put - len(served)
    while lanes.waiting or running:
        while take():
            pass
        for each in running:
            lanes.done(each)
        running.clear()
    assert len(served) == put
    for key in {each.key for each in served}:
        works = [each.work for each in served if each.key == key]
        assert works == sorted(works)


def test_slow_receiver_delays_no_other():
    """A hundred messages to one that never responds, then one to another: that one goes out at once."""
    lanes: DeliverySlots[int] = DeliverySlots(SLOTS)
    for n in range(100):
        lanes.put(job("a", "slow", f"s{n}", is_urgent=True))
    lanes.put(job("b", "quick", "q"))
    taken = []
    while (each := lanes.take()) is not None:
        taken.append(each.receiver)
    assert sorted(taken) == ["quick", "slow", "slow"]
    assert lanes.full_receivers(98) == ["slow"]
    assert lanes.full_teams(98) == ["a"]


def test_many_slow_receivers_delay_their_own_team_only():
    """Names are cheap: they do not buy a team every slot."""
    lanes: DeliverySlots[int] = DeliverySlots(SLOTS)
    for n in range(50):
        lanes.put(job("a", f"slow{n}", f"s{n}"))
    lanes.put(job("b", "quick", "q"))
    teams = Counter()
    while (each := lanes.take()) is not None:
        teams[each.team] += 1
    assert teams == {"a": 4, "b": 1}


def test_receivers_take_turns():
    """One with many messages does not go before one with few."""
    lanes: DeliverySlots[int] = DeliverySlots(Slots(1, 1, 1))
    for n in range(3):
        lanes.put(job("a", "busy", f"b{n}"))
    lanes.put(job("a", "other", "o"))
    order = []
    while (each := lanes.take()) is not None:
        order.append(each.receiver)
        lanes.done(each)
    assert order == ["busy", "other", "busy", "busy"]


def test_waiting_jobs_can_be_taken_back():
    """At the end of the process, jobs that were not begun are returned."""
    lanes: DeliverySlots[int] = DeliverySlots(SLOTS)
    lanes.put(job("a", "x", "1"))
    lanes.put(job("a", "y", "2"))
    assert [each.key for each in lanes.clear()] == ["1", "2"]
    assert lanes.take() is None
    assert lanes.waiting == 0


def test_urgent_jobs_go_first():
    """Waiting progress delays no end, neither here nor in the store."""
    lanes: DeliverySlots[int] = DeliverySlots(Slots(1, 1, 1))
    for n in range(50):
        lanes.put(job("a", "x", f"n{n}"))
    lanes.put(job("a", "x", "end", is_urgent=True))
    assert lanes.full_receivers(2) == lanes.full_teams(2) == []
    assert lanes.full_receivers(1) == ["x"]
    first = lanes.take()
    assert first is not None
    assert first.key == "end"
    assert lanes.full_receivers(1) == []


def test_end_waits_for_progress_of_its_key():
    """One job of a key at a time, urgent or not."""
    lanes: DeliverySlots[int] = DeliverySlots(SLOTS)
    lanes.put(job("a", "x", "p"))
    progress = lanes.take()
    assert progress is not None
    lanes.put(job("a", "x", "p", is_urgent=True))
    assert lanes.take() is None
    lanes.done(progress)
    assert lanes.take() is not None
