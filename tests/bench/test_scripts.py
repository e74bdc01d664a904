"""Every script of `bench/` runs, and its last line is one object with what the docs promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.doc_blocks import ROOT
from tests.support.tools import clean_environment

ROUND = ("--rounds", "1", "--seconds", "0.1")
SCRIPTS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "hit": (ROUND, {"table"}),
    "poll": (ROUND, {"table"}),
    "metadata": (ROUND, {"table"}),
    "access_log": (ROUND, {"table", "dropped_lines"}),
    "admission": ((*ROUND, "--checks", "100"), {"table", "check_us"}),
    "miss": ((*ROUND, "--connections", "4"), {"table", "reads_of_a_run"}),
    "streams": (("--streams", "20", "--rounds", "1", "--seconds", "2.5"), {"table"}),
    "growth": ((*ROUND, "--stored", "50", "200"), {"table", "file_bytes", "start_seconds"}),
    "soak": (("--minutes", "0.05", "--workers", "3", "--every", "1", "--settle", "0"), {"table", "curve", "errors"}),
    "peers": ((*ROUND, "--only", "aiohttp proxy"), {"table", "skipped"}),
    "nodes": ((*ROUND, "--nodes", "1", "2", "--connections", "4"), {"table", "postgres_cpu_us"}),
    "store": (("--operations", "100", "--rounds", "1", "--stored", "500"), {"hit", "start", "large"}),
    "hit_batches": (("--hits", "200", "--rounds", "1"), {"sqlite"}),
    "hit_engines": (("--hits", "200", "--rounds", "1"), {"table_of_sizes"}),
    "steps": (("--rounds", "1"), {"microseconds"}),
    "ledger": (("--runs", "400", "--small", "100"), {"small", "large", "ratio"}),
    "calls": (("--rounds", "1"), {"poll", "hit", "join", "miss", "end"}),
    "follow": (("--runs", "1", "--durations", "0.3"), {"delays"}),
    "crowd": (("--callers", "5", "--seconds", "1"), {"callers"}),
    "fingerprint": (("--rounds", "1", "--megabytes", "0.1"), {"inputs", "read_schema_us"}),
    "stall": (("--only", "a plain text", "--patience", "20"), {"worst_ms", "inputs"}),
    "stalled_uploads": (("--uploads", "3", "--rounds", "1", "--requests", "3"), {"create", "poll"}),
    "news": (("--runs", "2", "--streams", "2", "--seconds", "2.5"), {"end", "stream_owner", "stream_other", "told"}),
    "crash": (("--rounds", "1"), {"ids_lost", "rounds_broken"}),
}
PARTS = {"serve", "stub", "stall_gateway", "stall_probe"}
"""Started by the scripts."""
FIGURES = {"path", "unit", "ours", "reference", "ratio", "goal"}


def test_every_script_has_a_smoke_test():
    started = {path.stem for path in (ROOT / "bench").glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert started - PARTS - {"__main__"} == set(SCRIPTS) - {"peers"}


def last_object(command: list[str]) -> dict:
    """Run a command; return the object of its last line."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(name: str) -> None:
    arguments, keys = SCRIPTS[name]
    result = last_object([f"bench.{name}", *arguments])
    assert result["bench"] == name
    assert keys <= result.keys()
    if "table" in keys:
        assert {"cpu", "cores", "python", "aiohttp", "uvloop", "load"} <= result["machine"].keys()
        assert result["table"]
        for row in result["table"]:
            assert row.keys() >= FIGURES
            for figure in ("ours", "reference", "ratio"):
                assert row[figure].keys() == {"median", "min", "max"}


@pytest.mark.timeout(60)
def test_the_benchmark_of_polls_runs():
    """One script in every run of the tests; the others take longer."""
    check("poll")


def test_a_request_makes_no_more_own_calls_than_its_goal():
    """See docs/performance.md, Own calls of one request."""
    counted = last_object(["bench.calls", "--rounds", "3"])
    for path, most in {"poll": 45, "hit": 150, "join": 150, "miss": 250, "end": 350}.items():
        assert counted[path]["calls"] <= most, path


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - {"poll"}))
def test_a_benchmark_runs(name: str):
    if name == "news" and postgres.binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    check(name)


@pytest.mark.long
def test_make_bench_prints_one_table(tmp_path: Path):
    file = tmp_path / "all.json"
    command = [sys.executable, "-m", "bench", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(file.read_text())["results"]
    paths = [row["path"] for result in results.values() for row in result["table"]]
    printed = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    assert printed[2:] == paths
