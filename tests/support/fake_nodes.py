"""Nodes in memory, for tests of what is built on them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.domain.records import Run, RunState
from gateway.errors import StoreUnavailable
from gateway.nodes.ports import LEADER, Living, Node, Nodes
from tests.support.clock import ManualClock


class FakeNodes:
    """The nodes of one store. `away` makes every call fail, `delays` make renewals slow."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.is_away = False
        self.delay = 0.0
        self.skew = 0.0
        self.members: dict[int, Node] = {}
        self.runs: dict[str, Run] = {}
        self.places: dict[int, str] = {}
        self.config_reloads = 0
        self.leases: dict[str, tuple[int, float]] = {}
        self.on_call: Callable[[str], None] = lambda _: None

    def now(self) -> float:
        """Return the time of the store's clock, which is ahead by `skew`."""
        return self._clock.now() + self.skew

    async def _called(self, name: str) -> None:
        self.on_call(name)
        if self.delay:
            await self._clock.sleep(self.delay)
        if self.is_away:
            raise StoreUnavailable("away")

    async def clock(self) -> float:
        await self._called("clock")
        return self.now()

    def lives(self, number: int) -> bool:
        """Return whether a node has not ended."""
        return number in self.members and self.members[number].ended_at is None

    def end_now(self, number: int) -> None:
        """End a node, as another one does."""
        self.members[number] = replace(self.members[number], ended_at=self._clock.now())

    async def join(self, name: str, seconds: float, place: str = "") -> int:
        await self._called("join")
        number, now = len(self.members) + 1, self.now()
        self.places[number] = place
        self.members[number] = Node(number=number, name=name, started_at=now, renewed_at=now, expires_at=now + seconds)
        return number

    async def renew(self, number: int, seconds: float, report: str) -> bool:
        await self._called("renew")
        if not self.lives(number):
            return False
        now = self.now()
        self.members[number] = replace(self.members[number], renewed_at=now, expires_at=now + seconds, report=report)
        return True

    async def leave(self, number: int) -> None:
        await self._called("leave")
        self.end_now(number)

    async def end_expired(self, by: int, at: float) -> list[int]:
        await self._called("end_expired")
        expired = [
            each
            for each, node in self.members.items()
            if self.lives(each)
            and each != by
            and (node.expires_at < at or node.renewed_at > at + node.expires_at - node.renewed_at)
        ]
        for each in expired:
            self.end_now(each)
        return expired

    async def end(self, by: int, numbers: Sequence[int]) -> list[int]:
        await self._called("end")
        found = [each for each in numbers if self.lives(each) and each != by and self.lives(by)]
        for each in found:
            self.end_now(each)
        return found

    async def take_runs(self, by: int, limit: int) -> list[Run]:
        await self._called("take_runs")
        leads = self.leases.get(LEADER, (0, 0.0))[0] == by
        found = [
            run
            for run in self.runs.values()
            if not self.lives(run.owner) and self.lives(by) and (run.state is RunState.LIVE or leads)
        ]
        taken = [replace(run, owner=by) for run in found[:limit]]
        self.runs |= {run.id: run for run in taken}
        return taken

    async def take_ended_runs(self, by: int, since: float, limit: int) -> int:
        await self._called("take_ended_runs")
        return 0

    async def owned_runs(self, number: int) -> list[str]:
        await self._called("owned_runs")
        return [run.id for run in self.runs.values() if run.owner == number]

    async def living(self) -> Living:
        await self._called("living")
        return Living(self.now(), {each: self.places.get(each, "") for each in self.members if self.lives(each)})

    async def nodes(self, limit: int, *, before: int | None = None) -> list[Node]:
        await self._called("nodes")
        found = sorted(self.members.values(), key=lambda node: -node.number)
        return [node for node in found if before is None or node.number < before][:limit]

    async def note_reload(self) -> int:
        await self._called("note_reload")
        self.config_reloads += 1
        return self.config_reloads

    async def reloads(self) -> int:
        await self._called("reloads")
        return self.config_reloads

    async def forget_sessions(self, limit: int) -> int:
        await self._called("forget_sessions")
        return 0

    async def lead(self, name: str, number: int, seconds: float) -> bool:
        await self._called("lead")
        leader, until = self.leases.get(name, (number, 0.0))
        if leader != number and self.lives(leader) and until >= self._clock.now():
            return False
        self.leases[name] = (number, self._clock.now() + seconds)
        return True


if TYPE_CHECKING:
    _: type[Nodes] = FakeNodes
