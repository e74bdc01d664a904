"""Command and result types of a create."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Literal

import msgspec
from msgspec.structs import replace

from gateway.domain.cache_directives import Directives
from gateway.domain.create_body import CreateBody
from gateway.domain.file_content import FileContent
from gateway.domain.hold import Hold
from gateway.domain.records import Copy, Kind, PredictionView
from gateway.domain.tags import NONE
from gateway.domain.targets import Target
from gateway.domain.teams import Caller
from gateway.domain.upstream_response import Answer

AddDepartureListener = Callable[[Callable[[], None]], Callable[[], None]]


def no_departure(_: Callable[[], None], /) -> Callable[[], None]:
    """Add no listener, because the caller cannot leave."""
    return lambda: None


class NamedBy(msgspec.Struct, frozen=True):
    """How a caller named the target of a create: by the path, or by `version` in the body."""

    path: str
    version: str | None


class CreateCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A create as the caller sent it, with its form checked."""

    kind: Kind
    operation: str
    path: str
    """The upstream route below `/v1`."""
    target: Target
    body: CreateBody
    named_by: NamedBy | None = None
    """How the caller named the target, if by an alias. The other fields have the target itself."""
    cancel_after: float | None = None
    cancel_after_header: str | None = None
    user: str | None = None
    tags: str = NONE
    """The cost tags, as `gateway.domain.tags` writes them."""
    address: str | None = None
    """The address of a caller that uses a public credential."""
    request_id: str = ""
    own_origins: frozenset[str] = frozenset()
    directives: Directives = Directives()
    idempotency_key: str | None = None
    hold_until: float = 0.0
    """Until when it may wait for a limit or a permit, by the monotonic clock."""
    has_left: Callable[[], bool] = lambda: False
    """Says whether the caller has disconnected."""
    add_departure_listener: AddDepartureListener = no_departure
    """Calls a function when the caller disconnects. What it returns removes that listener."""
    hold: Hold = msgspec.field(default_factory=Hold)
    """How long it was held for limits so far. Whoever holds it adds to it."""


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction, and how it was answered."""

    view: PredictionView
    cache_status: str
    is_replay: bool = False
    answer: Answer | None = None
    """Upstream's answer, for the prediction that started the run."""
    upstream_seconds: float = 0.0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a create would do."""

    result: Literal["hit", "join", "run", "refused"]
    deterministic: bool = False
    reason: str
    fingerprint: str | None = None
    refused_by: str | None = None
    """The limit, or the setting, that would refuse it."""
    microusd: int | None = None
    """What it would cost; `None` if that is unknown."""


class LinkedOutput(msgspec.Struct, frozen=True):
    """A stored output file that an input links to."""

    copy: Copy
    content: FileContent
    upstream_until: float
    """Until when upstream's own link to the file works."""


class CreateContext(msgspec.Struct, frozen=True, dict=True):
    """A create whose caller may run its target, with the links of its input translated."""

    caller: Caller
    command: CreateCommand
    files: Mapping[str, FileContent]
    """The content of what links in the input lead to, by the link as it stands in the body."""

    may_link: bool = True
    """Whether a text of the input can contain a link."""
    outputs: Mapping[str, LinkedOutput] = {}
    """The stored outputs that links in the input lead to, by the link as it stands in the body."""

    @cached_property
    def plain_body(self) -> bytes:
        """The caller's body with file links translated, without a webhook. It can hold secret values."""
        return self.command.body.for_upstream()

    @property
    def identifying_parts(self) -> tuple[bytes, ...]:
        """Everything that a request repeated with the same idempotency key must equal."""
        command, body = self.command, self.plain_body
        path = command.path
        if command.named_by is not None:
            # As it was sent: it stays the same request when the alias gets another target.
            path = command.named_by.path
            body = replace(command.body, version=command.named_by.version).for_upstream()
        return path.encode(), body, (command.body.webhook or "").encode()
