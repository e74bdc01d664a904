"""The SQLite store: one file, one thread that writes and one that reads (docs/architecture.md, Invariants 9 and Store).

Each role of the store has a file in `sql/`. `sql/worker.py` and `sql/writer.py` explain how operations are executed.
"""

import asyncio
import sqlite3
from typing import TYPE_CHECKING

from gateway.errors import StoreUnavailable
from gateway.store.claim import Claim
from gateway.store.sql.auditing import SQLiteAuditing
from gateway.store.sql.cache import SQLiteCache
from gateway.store.sql.deliveries import SQLiteDeliveries
from gateway.store.sql.events import SQLiteEventLogs
from gateway.store.sql.files import SQLiteFiles
from gateway.store.sql.idempotency import SQLiteIdempotency
from gateway.store.sql.intents import SQLiteIntents
from gateway.store.sql.keys import SQLiteKeys
from gateway.store.sql.money import SQLiteMoney
from gateway.store.sql.outputs import SQLiteOutputs
from gateway.store.sql.predictions import SQLitePredictions
from gateway.store.sql.queries import SQL
from gateway.store.sql.secrets import SQLiteSecrets
from gateway.store.sql.sharing import SQLiteSharing
from gateway.store.sql.troubles import try_write
from gateway.store.sql.versions import SQLiteVersions

if TYPE_CHECKING:
    from gateway.store.interface import Store


class SQLiteStore(
    SQLitePredictions,
    SQLiteIntents,
    SQLiteSharing,
    SQLiteCache,
    SQLiteIdempotency,
    SQLiteDeliveries,
    SQLiteEventLogs,
    SQLiteKeys,
    SQLiteFiles,
    SQLiteOutputs,
    SQLiteVersions,
    SQLiteSecrets,
    SQLiteMoney,
    SQLiteAuditing,
):
    """All persistent data, in one SQLite file."""

    _claim: Claim | None = None

    async def claim(self) -> None:
        """Claim the file for this process. Raise `StoreUnavailable` if another process serves from it."""
        claim = Claim(self.path)
        await asyncio.to_thread(claim.take)
        self._claim = claim

    async def close(self) -> None:
        """Finish the queued operations, close the connections and release the claim."""
        await super().close()
        if self._claim is not None:
            self._claim.release()

    async def ping(self) -> None:
        """Prove that the store answers, and that this process is the one that serves from it."""
        if self._claim is not None:
            await asyncio.to_thread(self._claim.renew)
        written = await self._write(lambda db: _count(db, "write_ping"))
        if await self._read(lambda db: _count(db, "read_ping")) < written:
            raise StoreUnavailable("The store returned an older value than the one just written.", retry_after=5)
        await self._try_again()

    async def _try_again(self) -> None:
        """After a write that failed for a lasting reason, find out whether writes succeed again."""
        loop = asyncio.get_running_loop()
        if self._troubles.failing(loop.time()) is None:
            return
        await self._write(try_write, durable=True, erases=True)
        self._troubles.note_trial()
        if (failing := self._troubles.failing(loop.time())) is not None:
            ago = loop.time() - failing.at
            raise StoreUnavailable(f"{failing.detail} A write failed {ago:.0f} seconds ago.", retry_after=30)


def _count(db: sqlite3.Connection, query: str) -> int:
    ((count,),) = db.execute(SQL[query]).fetchall()
    return int(count)


if TYPE_CHECKING:
    _: type[Store] = SQLiteStore
