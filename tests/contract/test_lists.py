"""Lists of predictions and files, newest first, paged in both directions, compared with a plain Python list."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain.cursors import Cursor
from gateway.domain.records import File, Kind, Page, PredictionView
from gateway.store.interface import Store
from tests.support.records import NOW, ended, file, prediction

_fresh_team = (f"team{n}" for n in itertools.count())

# Few times for many items, so that most share theirs; the order of ids is independent.
ITEMS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10_000)), unique=True, max_size=14)
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


class Model:
    """A list in memory that answers as a store must."""

    def __init__(self, places: list[tuple[float, str]]) -> None:
        self.places = sorted(places, reverse=True)

    def page(self, limit: int, position: Cursor | None) -> tuple[list[str], bool, bool]:
        places = self.places
        if position is None:
            begin, end = 0, limit
        elif position.backward:
            end = sum(place > (position.at, position.id) for place in places)
            begin = end - limit
        else:
            begin = sum(place >= (position.at, position.id) for place in places)
            end = begin + limit
        begin, end = max(begin, 0), min(end, len(places))
        return [item for _, item in places[begin:end]], begin > 0, end < len(places)


def ids(page: Page) -> list[str]:
    return [item.prediction.id if isinstance(item, PredictionView) else item.id for item in page.items]


def places(page: Page) -> list[tuple[float, str]]:
    items: list[Any] = [item.prediction if isinstance(item, PredictionView) else item for item in page.items]
    return [(item.created_at, item.id) for item in items]


async def walk(read: Callable[[Cursor | None], Awaitable[Page]], model: Model, limit: int) -> None:
    """Go down the list page by page and up again, comparing every page with the model's."""
    position: Cursor | None = None
    seen: list[str] = []
    while True:
        page = await read(position)
        assert (ids(page), page.has_newer, page.has_older) == model.page(limit, position)
        seen += ids(page)
        if not page.has_older:
            break
        position = Cursor(*places(page)[-1])
    assert seen == [item for _, item in model.places]
    while page.has_newer:
        position = Cursor(*places(page)[0], backward=True)
        page = await read(position)
        assert (ids(page), page.has_newer, page.has_older) == model.page(limit, position)


@SETTINGS
@given(
    items=ITEMS,
    limit=st.integers(1, 5),
    after=st.none() | st.integers(0, 4),
    before=st.none() | st.integers(0, 5),
    everyones=st.booleans(),
    one_owner=st.booleans(),
)
async def test_prediction_pages_match_a_plain_list(
    store: Store,
    items: list[tuple[int, int]],
    limit: int,
    after: int | None,
    before: int | None,
    *,
    everyones: bool,
    one_owner: bool,
) -> None:
    """No page misses or repeats an item, and links to more pages exist exactly when there are more."""
    team = next(_fresh_team)
    # A list of all teams is limited by time to the items of this example.
    base = NOW + int(team.removeprefix("team")) * 100
    # An id is recorded once.
    found = [(base + at, f"{team}x{n:05}") for n, at in {n: at for at, n in items}.items()]
    one_owner = one_owner and not everyones
    for number, (at, item) in enumerate(found):
        owner = ("user:ann", "user:ben", None)[number % 3]
        await store.record_created(ended(item), prediction(item, item, created_at=at, team=team, owner=owner))
        await store.record_created(ended(f"{item}t"), prediction(f"{item}t", f"{item}t", team=team, kind=Kind.TRAINING))
    low = base + after if after is not None else base if everyones else None
    high = base + before if before is not None else base + 50 if everyones else None

    async def read(position: Cursor | None) -> Page:
        return await store.predictions(
            team=None if everyones else team,
            owner="user:ann" if one_owner else None,
            kind=Kind.PREDICTION,
            limit=limit,
            position=position,
            created_after=low,
            created_before=high,
        )

    if one_owner:
        found = found[::3]
    shown = [place for place in found if (low is None or place[0] >= low) and (high is None or place[0] < high)]
    await walk(read, Model(shown), limit)


@SETTINGS
@given(
    items=ITEMS,
    limit=st.integers(1, 5),
    at=st.integers(-1, 5),
    item=st.integers(0, 10_000),
    backward=st.booleans(),
)
async def test_page_can_start_at_a_deleted_item(
    store: Store, items: list[tuple[int, int]], limit: int, at: int, item: int, *, backward: bool
) -> None:
    """The item of the cursor has been deleted since: the page starts at its position."""
    team = next(_fresh_team)
    found = [(NOW + at, f"{team}x{n:05}") for at, n in items]
    for created_at, each in found:
        await store.record_created(ended(each), prediction(each, each, created_at=created_at, team=team))
    position = Cursor(NOW + at, f"{team}x{item:05}", backward)
    page = await store.predictions(team=team, kind=Kind.PREDICTION, limit=limit, position=position)
    assert (ids(page), page.has_newer, page.has_older) == Model(found).page(limit, position)


@SETTINGS
@given(
    items=ITEMS, limit=st.integers(1, 5), expired=st.sets(st.integers(0, 10_000)), owner=st.sampled_from([None, "o"])
)
async def test_file_pages_match_a_plain_list(
    store: Store, items: list[tuple[int, int]], limit: int, expired: set[int], owner: str | None
) -> None:
    """Expired files are not listed, and no link leads to an empty page."""
    team = next(_fresh_team)
    gone = expired | {n for _, n in items if n % 3 == 0}
    for at, n in items:
        life = 0 if n in gone else 100
        await store.add_file(file(f"{team}x{n:05}", team=team, owner="o", created_at=NOW + at, expires_at=NOW + life))
        if owner is not None:
            await store.add_file(file(f"{team}y{n:05}", team=team, created_at=NOW + at, owner="another"))

    async def read(position: Cursor | None) -> Page:
        return await store.files(team=team, owner=owner, limit=limit, now=NOW, position=position)

    shown = {(NOW + at, f"{team}x{n:05}") for at, n in items if n not in gone}
    # An id can be used only once, by the first file.
    first = {}
    for at, n in items:
        first.setdefault(f"{team}x{n:05}", NOW + at)
    await walk(read, Model([place for place in shown if first[place[1]] == place[0]]), limit)


async def test_list_contains_the_teams_own_predictions_in_order(store: Store) -> None:
    """Other teams' predictions and trainings are absent; equal times are ordered by id."""
    for item, team, kind in [("b", "red", "prediction"), ("a", "red", "prediction"), ("c", "blue", "prediction")]:
        await store.record_created(ended(item), prediction(item, item, team=team, kind=Kind(kind)))
    await store.record_created(ended("d"), prediction("d", "d", kind=Kind.TRAINING, created_at=NOW - 1))
    page = await store.predictions(team="red", kind=Kind.PREDICTION, limit=10)
    assert (ids(page), page.has_newer, page.has_older) == (["b", "a"], False, False)
    assert page.items[0] == PredictionView(prediction("b", "b"), ended("b"))
    assert ids(await store.predictions(team=None, kind=Kind.PREDICTION, limit=10)) == ["c", "b", "a"]
    assert ids(await store.predictions(team="red", kind=Kind.TRAINING, limit=10)) == ["d"]
    assert ids(await store.predictions(team="green", kind=Kind.PREDICTION, limit=10)) == []


async def test_time_bounds_are_inclusive_and_exclusive(store: Store) -> None:
    for n in range(4):
        await store.record_created(ended(f"r{n}"), prediction(f"p{n}", f"r{n}", created_at=NOW + n))
    page = await store.predictions(
        team="red", kind=Kind.PREDICTION, limit=10, created_after=NOW + 1, created_before=NOW + 3
    )
    assert (ids(page), page.has_newer, page.has_older) == (["p2", "p1"], False, False)


@pytest.mark.parametrize("at", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("backward", [False, True])
async def test_arbitrary_cursor_is_accepted(store: Store, at: float, *, backward: bool) -> None:
    """Callers can decode cursors, so some will build their own."""
    await store.record_created(ended(), prediction())
    page = await store.predictions(
        team="red", kind=Kind.PREDICTION, limit=10, position=Cursor(at, "x", backward=backward)
    )
    assert len(page.items) <= 1
    await store.files(team="red", limit=10, now=NOW, position=Cursor(at, "x", backward=backward))


async def test_files_of_all_teams_can_be_listed(store: Store) -> None:
    await store.add_file(file("f1", team="red"))
    await store.add_file(file("f2", team="blue", created_at=NOW + 1))
    page = await store.files(team=None, limit=1, now=NOW)
    assert page == Page([file("f2", team="blue", created_at=NOW + 1)], has_newer=False, has_older=True)
    assert all(isinstance(item, File) for item in page.items)


async def test_page_of_files_ends_at_its_size(store: Store) -> None:
    """Metadata can be large: a page has one file at least, and the rest follows."""
    for number in range(5):
        document = b'{"metadata":{"a":"%b"}}' % (b"x" * 10_000)
        await store.add_file(file(f"size{number}", team="sized", created_at=NOW + number, document=document))
    for max_bytes, size in ((1, 1), (25_000, 2), (10**6, 5), (None, 5)):
        page = await store.files(team="sized", limit=100, now=NOW, max_bytes=max_bytes)
        assert ([each.id for each in page.items], page.has_older) == (
            [f"size{number}" for number in (4, 3, 2, 1, 0)][:size],
            size < 5,
        )


async def test_page_ends_at_its_size(store: Store) -> None:
    """A page has one item at least; the pages after it have the rest, each once, in both directions."""
    for number in range(5):
        run = replace(ended(f"size{number}"), document=b'{"logs":"%b"}' % (b"x" * 10_000))
        at = NOW + number
        await store.record_created(run, prediction(f"size{number}", f"size{number}", created_at=at, team="sized"))

    async def read(position: Cursor | None, max_bytes: int | None) -> Page:
        return await store.predictions(
            team="sized", kind=Kind.PREDICTION, limit=100, position=position, max_bytes=max_bytes
        )

    for max_bytes, size in ((1, 1), (25_000, 2), (10**6, 5), (None, 5)):
        seen, position, pages = [], None, []
        while True:
            page = await read(position, max_bytes)
            seen += ids(page)
            pages.append(len(page.items))
            if not page.has_older:
                break
            last = page.items[-1]
            position = Cursor(last.prediction.created_at, last.prediction.id)
        assert seen == [f"size{number}" for number in (4, 3, 2, 1, 0)]
        assert max(pages) == size
    back = await read(Cursor(NOW, "size0", backward=True), 25_000)
    assert (ids(back), back.has_newer, back.has_older) == (["size2", "size1"], True, True)
