"""The order of the tests where several workers share them."""

from tests.support.order import mixed

NUMBERS = {"e2e": 40, "gateway": 200, "unit": 500}
NODEIDS = [f"tests/{folder}/test_it.py::test_{n}" for folder, number in NUMBERS.items() for n in range(number)]


def in_order() -> list[str]:
    places = mixed(NODEIDS)
    return sorted(NODEIDS, key=places.__getitem__)


def test_each_folder_is_spread_over_the_run_and_keeps_its_order():
    order = in_order()
    assert sorted(order) == sorted(NODEIDS)
    for folder, number in NUMBERS.items():
        mine = [nodeid for nodeid in NODEIDS if f"/{folder}/" in nodeid]
        assert [nodeid for nodeid in order if f"/{folder}/" in nodeid] == mine
        in_first_half = sum(f"/{folder}/" in nodeid for nodeid in order[: len(order) // 2])
        assert 0.4 * number < in_first_half < 0.6 * number


def test_the_last_tests_are_short_ones():
    assert all("/unit/" in nodeid for nodeid in in_order()[-40:])
