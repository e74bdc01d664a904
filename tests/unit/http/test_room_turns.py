"""The order in which responses get room: first come, first served in a team, fair over teams, and nobody forever."""

from collections import Counter, defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from gateway.http.room_turns import Turn, Turns

MOST = 100


class Rooms:
    """What is counted, and the requests that wait."""

    def __init__(self) -> None:
        self.by_team: Counter[str] = Counter()
        self.turns = Turns(self.fits_team, self.fits_all, lambda: MOST)

    def fits_team(self, team: str, size: int) -> bool:
        return not self.by_team[team] or self.by_team[team] + size <= MOST // 2

    def fits_all(self, size: int) -> bool:
        used = self.by_team.total()
        return not used or used + size <= MOST

    def ask(self, team: str, size: int) -> Turn | None:
        """Take room, or wait for it."""
        if self.turns.may_overtake(team, size):
            self.by_team[team] += size
            return None
        turn = Turn(team, size)
        self.turns.add(turn)
        return turn

    def free(self, team: str, size: int) -> list[Turn]:
        """Give room back, and return who gets it."""
        self.by_team[team] -= size
        return self.admit()

    def admit(self) -> list[Turn]:
        given: list[Turn] = []
        while (turn := self.turns.next()) is not None:
            self.by_team[turn.team] += turn.size
            given.append(turn)
        return given


def test_a_large_response_is_not_overtaken_for_ever():
    """Others pass the one that waits for the room of all, with as many bytes as there are in all; then it is next."""
    rooms = Rooms()
    for team in ("red", "blue", "green"):
        assert rooms.ask(team, 30) is None
    large = rooms.ask("grey", 40)
    assert large is not None
    for passed in range(10):
        assert large.passed == 10 * passed
        assert rooms.ask("pink", 10) is None
        assert rooms.free("pink", 10) == []
    small = rooms.ask("pink", 10)
    assert small is not None
    assert rooms.free("red", 30) == [large]
    assert rooms.free("blue", 30) == [small]


def test_request_that_waits_for_its_own_team_holds_up_no_other():
    rooms = Rooms()
    assert rooms.ask("red", 50) is None
    waiting = rooms.ask("red", 50)
    assert waiting is not None
    for _ in range(30):
        assert rooms.ask("blue", 40) is None
        assert rooms.free("blue", 40) == []
    assert waiting.passed == 0
    assert rooms.free("red", 50) == [waiting]


def test_teams_take_turns():
    """A team with many waiting requests delays another team by one of them."""
    rooms = Rooms()
    for team in ("a", "b"):
        assert rooms.ask(team, 50) is None
    reds = [rooms.ask("red", 20) for _ in range(4)]
    blue = rooms.ask("blue", 20)
    assert rooms.free("a", 50) == [reds[0], blue]
    assert rooms.free("b", 50) == [reds[1]]
    assert (rooms.turns.waiting, rooms.turns.waiting_of("red")) == (2, 2)


def test_waiting_creates_are_counted_in_bytes():
    turns = Rooms().turns
    turns.add(Turn("red", 20, is_create=True))
    turns.add(Turn("red", 20))
    assert (turns.create_bytes_of("red"), turns.create_bytes_of("blue")) == (20, 0)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 60), st.booleans(), st.integers(0, 9))))
def test_bounds_and_order_hold_whatever_is_asked(steps):
    """Steps ask for room, or give some back; requests leave the line as well."""
    rooms = Rooms()
    held: list[tuple[str, int]] = []
    lines: defaultdict[str, deque[Turn]] = defaultdict(deque)

    def note(turns: list[Turn]) -> None:
        for turn in turns:
            assert lines[turn.team].popleft() is turn, "a team's requests are served in order"
            held.append((turn.team, turn.size))

    for team, size, frees, index in steps:
        if frees and held:
            note(rooms.free(*held.pop(index % len(held))))
        elif frees and lines[team]:
            leaving = lines[team][index % len(lines[team])]
            lines[team].remove(leaving)
            rooms.turns.remove(leaving)
            note(rooms.admit())
        elif (turn := rooms.ask(team, size)) is not None:
            lines[team].append(turn)
            note(rooms.admit())
        else:
            assert not lines[team], "nobody overtakes a request of the same team"
            held.append((team, size))
        assert rooms.by_team.total() <= MOST or len(held) == 1
        for team_held, used in rooms.by_team.items():
            assert used <= MOST // 2 or sum(each == team_held for each, _ in held) == 1
        waiting = [turn for line in lines.values() for turn in line]
        assert rooms.turns.waiting == len(waiting)
        # The bound, and what the other teams' turns may bring when it is reached.
        assert all(turn.passed < MOST + 4 * 60 for turn in waiting)
    while held:
        note(rooms.free(*held.pop()))
    assert not rooms.turns.waiting, "everybody gets room in the end"
