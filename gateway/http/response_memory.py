"""Bounds the large responses that are in memory, from before they are made until their clients have taken them.

A client that reads slowly, or not at all, keeps its response in memory until it is disconnected. So a large response
needs room first, before its document is read from the store. While there is none, its request waits and holds nothing
large (`room_turns.py` has the order). Half of the room is for one team, so that a team's slow clients delay its own
requests only.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from gateway.domain.records import LARGE_DOCUMENT
from gateway.errors import GatewayError, Overloaded, RateLimited
from gateway.http.bytes_by_team import BytesByTeam
from gateway.http.room_turns import Turn, Turns

SMALL_RESPONSE = LARGE_DOCUMENT
"""Bytes of a response that is not counted."""
_TEAM_IS_SLOW: Final = (
    "Your team's clients have not taken their large responses yet. Read them, or close the connections."
)
_MOST_WAITING = 1000
"""Requests of one team that wait. A team's bound: one for all would let a team's requests refuse those of others."""


class ResponseMemory:
    """The large responses in memory, in bytes, by team, and the requests that wait for room, in order."""

    def __init__(self, most_bytes: Callable[[], int]) -> None:
        """Take the limit, which a reload can change."""
        self._most_bytes = most_bytes
        self._counted = BytesByTeam()
        self._forced: Counter[str] = Counter()
        """Bytes by team that were counted whether there was room or not, because what has changed is answered."""
        self._turns = Turns(self._fits_team, self._fits_all, most_bytes)
        self._given: dict[Turn, asyncio.Future[None]] = {}
        """What a waiting request awaits."""

    @property
    def used(self) -> int:
        """Bytes of all large responses in memory."""
        return self._counted.used

    @property
    def waiting(self) -> int:
        """Number of requests that wait for room."""
        return self._turns.waiting

    def room(self, team: str) -> "Room":
        """Return the room of one response of a team. It is empty, and given back when its context ends."""
        return Room(self, team)

    def _fits_all(self, size: int) -> bool:
        most = self._most_bytes()
        # What a team's creates take beyond its half takes no room of others.
        used = self.used - sum(
            min(forced, max(0, self._counted.of(team) - most // 2)) for team, forced in self._forced.items()
        )
        # A response that is larger than the bound has room when nothing else is counted. So it is below.
        return not used or used + size <= most

    def _fits_team(self, team: str, size: int) -> bool:
        of_team = self._counted.of(team)
        return not of_team or of_team + size <= self._most_bytes() // 2

    def add(self, team: str, size: int) -> None:
        """Count bytes of a team, whether there is room or not. Negative when they are gone; others then have room."""
        self._counted.add(team, size)
        if size < 0:
            self._admit()

    def add_forced(self, team: str, size: int) -> None:
        """Count bytes of a team's answers to changes, whether there is room or not. Negative when they are gone."""
        self._forced[team] += size
        if not self._forced[team]:
            del self._forced[team]
        self.add(team, size)

    def check_creates(self, team: str) -> None:
        """Raise `RateLimited` if a team's creates wait for more than its half, or have taken that without room."""
        if self._forced[team] + self._turns.create_bytes_of(team) > self._most_bytes() // 2:
            raise RateLimited(_TEAM_IS_SLOW, retry_after=1)

    def take(self, team: str, size: int) -> bool:
        """Count bytes if there is room and it is their turn. Return whether they are counted."""
        if not self._turns.may_overtake(team, size):
            return False
        self.add(team, size)
        return True

    async def wait(self, team: str, size: int, seconds: float, *, is_create: bool = False) -> None:
        """Wait for room and count the bytes. Raise what `refusal` returns if there is none after `seconds`."""
        if self._turns.waiting_of(team) >= _MOST_WAITING:
            raise self.refusal(team, size)
        turn = Turn(team, size, is_create=is_create)
        given = self._given[turn] = asyncio.get_running_loop().create_future()
        self._turns.add(turn)
        # Its team may have room while another one waits.
        self._admit()
        try:
            async with asyncio.timeout(seconds):
                await given
        except BaseException as exc:
            if self._given.pop(turn, None) is None:
                # It was counted just before.
                self.add(team, -size)
            else:
                # It may have been the first in line.
                self._turns.remove(turn)
                self._admit()
            if isinstance(exc, TimeoutError):
                raise self.refusal(team, size) from exc
            raise

    def refusal(self, team: str, size: int) -> GatewayError:
        """Return the error for a response that has no room."""
        if not self._fits_team(team, size):
            return RateLimited(_TEAM_IS_SLOW, retry_after=1)
        return Overloaded("The gateway has as many large responses in memory as it can. Try again.", retry_after=1)

    def _admit(self) -> None:
        """Give room to those that wait."""
        while self._turns.waiting and (turn := self._turns.next()) is not None:
            given = self._given.pop(turn)
            self.add(turn.team, turn.size)
            # If it is done, its request was cancelled and does not know yet that it was counted.
            if not given.done():
                given.set_result(None)


class Room:
    """The bytes of one response."""

    def __init__(self, memory: ResponseMemory, team: str) -> None:
        self.size = 0
        self._forced = 0
        self._memory = memory
        self._team = team

    def take(self, size: int) -> bool:
        """Take room without waiting. Return whether there was any."""
        taken = self._memory.take(self._team, size)
        self.size += size if taken else 0
        return taken

    async def wait(self, size: int, seconds: float, *, is_create: bool = False) -> None:
        """Wait for room for up to `seconds`. Raise `RateLimited` or `Overloaded` if there is none."""
        await self._memory.wait(self._team, size, seconds, is_create=is_create)
        self.size += size

    def need(self, size: int) -> None:
        """Take room without waiting. Raise `RateLimited` or `Overloaded` if there is none."""
        if not self.take(size):
            raise self._memory.refusal(self._team, size)

    def force(self, size: int) -> None:
        """Count the response to what changed something, such as a cancel, whether there is room or not."""
        self._memory.add_forced(self._team, size)
        self._forced += size

    def resize(self, size: int) -> None:
        """Count the response with its true size, whether there is room or not."""
        self._memory.add(self._team, size - self.size)
        self.size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size:
            self.resize(0)
        if self._forced:
            self.force(-self._forced)
