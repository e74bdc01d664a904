"""Only one process serves from a file."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.sqlite import SQLiteStore
from gateway.store.sqlite.claim import Claim

_HOLD = """
import asyncio, sys
from gateway.store.sqlite import SQLiteStore
async def main():
    store = SQLiteStore(sys.argv[1]); await store.open(); await store.claim(); print("claimed", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_second_server_is_refused_and_the_command_line_is_not(tmp_path: Path) -> None:
    """Two gateways on one file would pay twice; `gateway keys` beside a running gateway works."""
    first, second = SQLiteStore(tmp_path / "g.db"), SQLiteStore(tmp_path / "g.db")
    await first.open()
    await first.claim()
    await second.open()
    with pytest.raises(StoreUnavailable, match="Another process already serves"):
        await second.claim()
    assert await second.keys() == []
    await first.close()
    await second.claim()
    await second.close()


async def test_a_claim_whose_file_is_gone_is_taken_again(tmp_path: Path) -> None:
    """Someone tidies up; a second server must still be refused."""
    first, second = SQLiteStore(tmp_path / "g.db"), SQLiteStore(tmp_path / "g.db")
    await first.open()
    await first.claim()
    (tmp_path / "g.db.serving").unlink()
    await first.ping()
    await second.open()
    with pytest.raises(StoreUnavailable, match="Another process already serves"):
        await second.claim()
    (tmp_path / "g.db.serving").unlink()
    await second.claim()
    with pytest.raises(StoreUnavailable, match="Another process already serves"):
        await first.ping()
    await second.close()
    await first.ping()
    await first.close()


def test_claim_is_renewed_by_several_threads_at_once(tmp_path: Path) -> None:
    """Probes of readiness come together: none of them may find the claim of another one."""
    claim = Claim(tmp_path / "g.db")
    claim.take()
    start = threading.Barrier(4)

    def renew() -> None:
        start.wait()
        claim.renew()

    with ThreadPoolExecutor(4) as threads:
        for _ in range(100):
            (tmp_path / "g.db.serving").unlink()
            for each in [threads.submit(renew) for _ in range(4)]:
                each.result()
    claim.release()


async def test_restart_after_kill_9_is_immediate(tmp_path: Path) -> None:
    """The next start does not wait for a lease to expire."""
    database = tmp_path / "g.db"
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(database)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "claimed\n"
        store = SQLiteStore(database)
        await store.open()
        with pytest.raises(StoreUnavailable):
            await store.claim()
        holder.kill()
        holder.wait()
    await store.claim()
    await store.close()
