"""Prove that the store answers (part of the `Store` interface)."""

import asyncio

from gateway.errors import StoreUnavailable
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.lasting_failures import try_write


class PingSteps(Connections):
    """A write that is read back. After a write that failed for a lasting reason, a larger one."""

    async def ping(self) -> None:
        """Prove that the store answers, and that this process is the one that serves from it."""
        await self._confirm_claim()
        written = await self._write(lambda db: _count(db, "write_ping"))
        if await self._read(lambda db: _count(db, "read_ping")) < written:
            raise StoreUnavailable("The store returned an older value than the one just written.", retry_after=5)
        await self._try_again()

    async def _confirm_claim(self) -> None:
        """Raise `StoreUnavailable` if this process had a claim on the store, and another one has it now."""
        raise NotImplementedError

    async def _try_again(self) -> None:
        """After a write that failed for a lasting reason, find out whether writes succeed again."""
        loop = asyncio.get_running_loop()
        if self._lasting_failures.failing(loop.time()) is None:
            return
        await self._write(try_write, durable=True, erases=True)
        self._lasting_failures.note_trial()
        if (failing := self._lasting_failures.failing(loop.time())) is not None:
            ago = loop.time() - failing.at
            raise StoreUnavailable(f"{failing.detail} A write failed {ago:.0f} seconds ago.", retry_after=30)


def _count(db: Database, query: str) -> int:
    ((count,),) = db.execute(query).fetchall()
    return int(count)
