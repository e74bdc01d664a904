"""CPU time of the steps of a create and of a poll that wait for nothing: what is left when store and network are free.

    python -m bench.steps [--rounds 5]

Each step is measured alone, by the CPU clock of its thread, for a small input, one of 2 KB, a prompt of 100 KB and a
data URI of 100 KB, and for documents with these inputs. The least of the rounds counts. The steps of a hit are those of
a request that repeats an earlier one. The last line is a JSON object with microseconds per call.
"""

import argparse
import asyncio
import base64
import json
import random
import time
from collections.abc import Callable, Coroutine
from itertools import cycle
from typing import Any, TypeVar

from msgspec.structs import replace

from bench.fingerprint import DOCUMENT
from gateway.access.policy import Policy as AccessPolicy
from gateway.domain import body_limits
from gateway.domain.body_limits import BodyLimits
from gateway.domain.create_body import parse_create
from gateway.domain.create_request import CreateCommand
from gateway.domain.records import Kind, Prediction, PredictionView, Run, RunState, Source, Status
from gateway.domain.targets import Target, TargetKind
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.predictions.bodies import PredictionBodies
from gateway.predictions.new_records import NewRecords, context_of
from gateway.predictions.settings import PredictionSettings
from gateway.runtime.live import LiveSettings
from gateway.sharing.identity import IdentityService
from gateway.sharing.rules.determinism import Policy
from gateway.sharing.settings import SharingSettings
from tests.support.clock import ManualClock
from tests.support.create_core import caller
from tests.support.fakes import FakeStore, FakeUpstream, answer

T = TypeVar("T")
BASE = "https://gateway.example.com/v1"
SECRET = b"s" * 32
TARGET = Target(TargetKind.MODEL, "stability-ai/sdxl")
UPSTREAM_ID = "vrsafsk7mnrgj0cf0p2ax766s4"
LIMITS = BodyLimits()


def inputs() -> dict[str, dict[str, Any]]:
    """Return inputs by their size."""
    picture = "data:image/png;base64," + base64.b64encode(random.Random(7).randbytes(75_000)).decode()
    plain = {"seed": 42, "width": 768, "height": 768, "guidance_scale": 7.5, "scheduler": "K_EULER"}
    prompts = {name: ("a photo of a cat " * size)[:size] for name, size in (("300 B", 180), ("2 KB", 1850))}
    found = {name: plain | {"prompt": prompt} for name, prompt in prompts.items()}
    found["prompt 100 KB"] = plain | {"prompt": ("a photo of a cat " * 6000)[:100_000]}
    return found | {"data URI 100 KB": plain | {"prompt": "a cat", "image": picture}}


def document_of(given: dict[str, Any]) -> bytes:
    """Return the document of a run that has ended."""
    api, date = f"https://api.replicate.com/v1/predictions/{UPSTREAM_ID}", "2024-04-22T11:15:1"
    times = {"created_at": f"{date}4.469Z", "started_at": f"{date}5.04Z", "completed_at": f"{date}8.1Z"}
    fields = {
        "id": UPSTREAM_ID, "model": TARGET.model, "version": "39ed52f2a78e934b" * 4, "input": given,
        "logs": "".join(f" {step}%|####| {step}/50\n" for step in range(20)),
        "output": ["https://replicate.delivery/xezq/abcd/out-0.webp"], "data_removed": False, "error": None,
        "source": "api", "status": "succeeded", **times, "metrics": {"predict_time": 3.0},
        "urls": {"cancel": f"{api}/cancel", "get": api, "web": f"https://replicate.com/p/{UPSTREAM_ID}"},
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":")).encode()


def result_of(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise RuntimeError("it waits")


def microseconds(act: Callable[[], object], rounds: int) -> float:
    """Return the CPU time of one call."""
    number, spent = 1, 0.0
    while spent < 0.01:
        number *= 2
        start = time.thread_time()
        for _ in range(number):
            act()
        spent = time.thread_time() - start
    least = spent
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(number):
            act()
        least = min(least, time.thread_time() - start)
    return round(least / number * 1e6, 2)


class _NoOutputs:
    async def linked(self, *_: object) -> dict[str, Any]:
        return {}


def steps_of(given: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Return the steps of a create and of the answer to it."""
    clock, store, upstream, who = ManualClock(), FakeStore(), FakeUpstream(), caller()
    upstream.script = lambda _: answer(200, DOCUMENT)
    versions = VersionMap(store, upstream)
    sharing = LiveSettings(SharingSettings(policy=Policy(), share="team", ttl_seconds=600.0))
    identities = IdentityService(SchemaService(upstream, clock), versions, sharing)
    access = AccessPolicy(versions, store, clock, "https://api.replicate.com/v1")
    settings = LiveSettings(PredictionSettings(adopt_wait_seconds=1.0, ticket_ttl_seconds=60.0, memory_bytes=1 << 26))
    records, bodies = NewRecords(clock, settings, ticket_secret=SECRET), PredictionBodies(SECRET, None, 1 << 25)
    body = json.dumps({"input": given}).encode()
    command = CreateCommand(
        kind=Kind.PREDICTION, operation="models.predictions.create", path="/p", target=TARGET,
        body=parse_create(body, "target"),
    )  # fmt: skip
    context = result_of(context_of(who, command, access, _NoOutputs()))  # type: ignore[arg-type]
    identity = asyncio.run(identities.of(context))
    run = Run(
        id="run_1", kind=Kind.PREDICTION, team="red", key_id="k", target=TARGET.name, path="/p", request=b"",
        intended_at=1.0, document=document_of(given), status=Status.SUCCEEDED, state=RunState.ENDED,
        upstream_id=UPSTREAM_ID, ended_at=2.0,
    )  # fmt: skip
    first = Prediction(
        id="kr2d2jhqbsrj60cjb2vtmekgh4", run_id=run.id, kind=Kind.PREDICTION, team="red", key_id="k",
        source=Source.HIT, created_at=1713784614.0, ticket="", ticket_expires_at=2e9,
    )  # fmt: skip
    views = [PredictionView(replace(first, id=f"kr2d2jhqbsrj60cjb2{number:08}"), run) for number in range(2000)]
    for view in views:
        # The record of a prediction has needed its ticket before.
        bodies.show(view, BASE, "predictions", is_kept=False)
    hits, polled = cycle(views), views[0]
    return {
        "limits of the body": lambda: body_limits.is_surely_within(body, LIMITS),
        "parse the body": lambda: parse_create(body, "target"),
        "check the target": lambda: result_of(access.check_target(who, TARGET)),
        "find links": lambda: result_of(context_of(who, command, access, _NoOutputs())),  # type: ignore[arg-type]
        "identity": lambda: result_of(identities.of(context)),
        "record": lambda: records.share_request(context, identity),
        "answer to a hit": lambda: bodies.show(next(hits), BASE, "predictions", is_kept=False),
        "answer to a poll": lambda: bodies.show(polled, BASE, "predictions", is_kept=True),
    }


def main() -> None:
    """Measure every step for every input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = {
        name: {step: microseconds(act, options.rounds) for step, act in steps_of(given).items()}
        for name, given in inputs().items()
    }
    print(f"{'µs':20}" + "".join(f"{name:>17}" for name in found))
    for step in next(iter(found.values())):
        print(f"{step:20}" + "".join(f"{each[step]:17.1f}" for each in found.values()))
    print(json.dumps({"bench": "steps", "microseconds": found}))


if __name__ == "__main__":
    main()
