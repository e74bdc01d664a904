"""An upstream in memory that does what the test says, when the test says so, and knows the truth."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from gateway.domain import times
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.upstream import Upstream
from gateway.domain.upstream_response import Answer
from gateway.errors import UpstreamUnavailable, UpstreamUncertain
from gateway.simulator.models import schema

MODEL = "acme/toy"
VERSION = "a" * 64
_JSON = {"content-type": "application/json"}
_PAGE = 2
_TERMINAL = {"succeeded", "failed", "canceled", "aborted"}
_SCHEMA = schema.model_schema(
    {"prompt": schema.field("string", "Anything", required=True), "seed": schema.seed_field()}, schema.TEXT
)


@dataclass
class UpstreamRun:
    """What upstream runs."""

    id: str
    prompt: str
    given: Any
    created_at: float
    status: str = "starting"
    completed_at: float | None = None
    cancels: int = 0
    """Number of requests to cancel it, from every process of the gateway."""
    cancels_failed: int = 0
    """Number of requests to cancel that did not reach it."""

    @property
    def seconds(self) -> float:
        """Its duration, as upstream reports it."""
        return round((self.completed_at or self.created_at) - self.created_at, 3)

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in _TERMINAL


@dataclass
class Sent:
    """A create that has arrived, taken or not, answered or not."""

    prompt: str
    given: Any
    answer: asyncio.Future[Answer] = field(repr=False)
    run: UpstreamRun | None = None
    outcome: str = ""
    """The response to its sender; empty while it waits."""


class FakeUpstream:
    """The account, through all lives of the gateway."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.runs: dict[str, UpstreamRun] = {}
        self.sent: list[Sent] = []
        self.cancels_late = False
        """Whether a cancel is answered as `processing`, and the run ends when the test says so."""
        self.cancels_fail = 0
        """How many cancels from now on come to nothing."""
        self.list_held: asyncio.Event | None = None
        """Set by a test that wants a list to be read some time after it was asked for."""
        self.on_send: Callable[[str], None] = _nothing
        self.on_cancel: Callable[[UpstreamRun], None] = _nothing

    @property
    def waiting(self) -> list[Sent]:
        """The creates whose senders still wait."""
        return [each for each in self.sent if not each.outcome]

    def take(self, sent: Sent) -> UpstreamRun:
        """Create what was asked for; the answer is another matter."""
        if sent.run is None:
            name = f"{len(self.runs):026}"
            sent.run = self.runs[name] = UpstreamRun(name, sent.prompt, sent.given, self.clock.now())
        return sent.run

    def answer(self, sent: Sent, outcome: str) -> None:
        """Answer the sender: `created`, `lost`, `broken`, `refused` or `unreachable`."""
        sent.outcome = outcome
        if sent.answer.done():
            return
        match outcome:
            case "created":
                sent.answer.set_result(self._answer(self.document(self.take(sent)), 201))
            case "lost":
                sent.answer.set_exception(UpstreamUncertain("lost"))
            case "broken":
                sent.answer.set_result(Answer(500, _JSON, b'{"detail": "oops"}'))
            case "refused":
                sent.answer.set_result(Answer(422, _JSON, b'{"detail": "no"}'))
            case "unreachable":
                sent.answer.set_exception(UpstreamUnavailable("unreachable"))

    def end(self, run: UpstreamRun, status: str) -> None:
        """End a run."""
        run.status, run.completed_at = status, self.clock.now()

    def document(self, run: UpstreamRun) -> dict[str, Any]:
        """Write a run as upstream would."""
        body: dict[str, Any] = {
            "id": run.id,
            "model": MODEL,
            "version": VERSION,
            "input": run.given,
            "logs": "",
            "output": run.prompt if run.status == "succeeded" else None,
            "error": None,
            "status": run.status,
            "created_at": times.render(run.created_at),
            "urls": {"get": f"https://upstream.invalid/v1/predictions/{run.id}"},
        }
        if run.completed_at is not None:
            body["completed_at"] = times.render(run.completed_at)
            body["metrics"] = {"predict_time": run.seconds}
        return body

    def _answer(self, body: Any, status: int = 200) -> Answer:
        return Answer(status, _JSON, json.dumps(body).encode())

    async def create(self, body: bytes) -> Answer:
        """Take in a create, and wait for what the test makes of it."""
        given = msgspec.json.decode(body)["input"]
        self.on_send(given["prompt"])
        sent = Sent(given["prompt"], given, asyncio.get_running_loop().create_future())
        self.sent.append(sent)
        return await sent.answer

    async def cancel(self, run_id: str) -> Answer:
        """Cancel at once, late, or not at all for now."""
        run = self.runs[run_id]
        if self.cancels_fail:
            self.cancels_fail -= 1
            run.cancels_failed += 1
            return Answer(502, _JSON, b"{}")
        self.on_cancel(run)
        run.cancels += 1
        if not run.is_over:
            if self.cancels_late:
                run.status = "processing"
            else:
                self.end(run, "canceled")
        return self._answer(self.document(run))

    def read(self, path: str, query: str) -> Answer:
        """Answer a look at a run, at the list, or at the version."""
        match path.strip("/").split("/"):
            case ["predictions"]:
                newest = list(self.runs.values())[::-1]
                start = int(parse_qs(query).get("cursor", ["0"])[0])
                more = start + _PAGE < len(newest)
                page = {
                    "results": [self.document(run) for run in newest[start : start + _PAGE]],
                    "next": f"https://upstream.invalid/v1/predictions?cursor={start + _PAGE}" if more else None,
                    "previous": None,
                }
                return self._answer(page)
            case ["predictions", run_id] if run_id in self.runs:
                return self._answer(self.document(self.runs[run_id]))
            case ["models", *_, version] if version == VERSION:
                return self._answer({"id": VERSION, "openapi_schema": _SCHEMA})
        return Answer(404, _JSON, b'{"detail": "not found"}')


def _nothing(_: object) -> None:
    """Do nothing."""


class Line:
    """One gateway's way to upstream. It is cut when the gateway is killed: nothing passes, and nothing fails."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._upstream = upstream
        self.is_cut = False

    async def _pass(self) -> None:
        if self.is_cut:
            await asyncio.Event().wait()

    async def read(
        self,
        operation: str,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask for something."""
        await self._pass()
        if operation.endswith(".list") and self._upstream.list_held is not None:
            await self._upstream.list_held.wait()
        return self._upstream.read(path, query)

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Change something."""
        await self._pass()
        if operation.endswith(".cancel"):
            return await self._upstream.cancel(path.split("/")[-2])
        return await self._upstream.create(body or b"")

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Files are another story."""
        raise NotImplementedError


if TYPE_CHECKING:
    _: type[Upstream] = Line
