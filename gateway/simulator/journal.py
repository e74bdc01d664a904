"""Log of received requests on both origins, for tests. Requests are bounded in number; the counts are not."""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, overload

import msgspec


class RecordedRequest(msgspec.Struct):
    """A request. Header names are lower case, `body` is the start of the body as text, `status` is None while open."""

    origin: str  # "api" or "delivery"
    operation: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    at: float
    body_size: int = 0
    body_sha256: str = ""
    body: str = ""
    status: int | None = None

    @property
    def has_authorization(self) -> bool:
        """Whether the request had an Authorization header."""
        return "authorization" in self.headers

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


class RequestLog:
    """The last requests, oldest first, and the count of each operation since the log was cleared."""

    def __init__(self, max_requests: int, max_body: int) -> None:
        self._requests: deque[RecordedRequest] = deque(maxlen=max_requests)
        self._max_body = max_body
        self._counts: Counter[tuple[str, str]] = Counter()
        self._authorized: Counter[str] = Counter()

    def record(self, request: RecordedRequest, body: bytes) -> None:
        """Add a request with its body."""
        request.body_size = len(body)
        if body:
            request.body_sha256 = hashlib.sha256(body).hexdigest()
            request.body = body[: self._max_body].decode("utf-8", "replace")
        self._requests.append(request)
        self._counts[request.origin, request.operation] += 1
        if request.has_authorization:
            self._authorized[request.origin] += 1

    def count(self, operation: str = "*", *, origin: str = "*", **fields: Any) -> int:
        """Count the requests of an operation, which may be a glob: `*predictions.create` matches all three creates.

        The count is exact. With `method=`, `path=` or `status=`, it only includes requests that are still in the log.
        """
        if not fields:
            return sum(
                number
                for (from_origin, name), number in self._counts.items()
                if fnmatchcase(name, operation) and fnmatchcase(from_origin, origin)
            )
        return len(self.find(operation, origin=origin, **fields))

    def find(self, operation: str = "*", *, origin: str = "*", **fields: Any) -> list[RecordedRequest]:
        """Return the matching requests that are still in the log."""
        return [
            request
            for request in self._requests
            if fnmatchcase(request.operation, operation)
            and fnmatchcase(request.origin, origin)
            and all(getattr(request, name) == value for name, value in fields.items())
        ]

    def authorized(self, origin: str) -> int:
        """Count the requests to an origin that had an Authorization header. For `delivery` it must be 0."""
        return self._authorized[origin]

    def counts(self) -> Mapping[str, int]:
        """Return the number of requests by operation."""
        totals: Counter[str] = Counter()
        for (_, operation), number in self._counts.items():
            totals[operation] += number
        return dict(totals)

    def clear(self) -> None:
        """Clear requests and counts."""
        self._requests.clear()
        self._counts.clear()
        self._authorized.clear()

    def __iter__(self) -> Iterator[RecordedRequest]:
        return iter(tuple(self._requests))

    def __len__(self) -> int:
        return len(self._requests)

    @overload
    def __getitem__(self, index: int) -> RecordedRequest: ...

    @overload
    def __getitem__(self, index: slice) -> list[RecordedRequest]: ...

    def __getitem__(self, index: int | slice) -> RecordedRequest | list[RecordedRequest]:
        return self._requests[index] if isinstance(index, int) else list(self._requests)[index]
