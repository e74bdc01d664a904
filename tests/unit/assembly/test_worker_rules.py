"""When a worker is started again."""

from gateway.assembly.workers import rules


def test_pauses_grow_up_to_a_bound():
    """A worker that fails again and again does not use a core, and one that failed once is soon back."""
    pauses = [rules.pause(failures) for failures in range(1, 2000)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
