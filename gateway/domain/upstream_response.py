"""An answer of upstream as values, and what may be passed on of it."""

from collections.abc import Mapping

import msgspec

from gateway.domain.problems import CONTENT_TYPE, problem

# What upstream says about the answer itself. Its server, cookies, CDN and connection are not the caller's business.
PASSED_HEADERS = frozenset(
    {
        "content-type",
        "content-disposition",
        "ratelimit-remaining",
        "ratelimit-reset",
        "ratelimit-limit",
        "retry-after",
        "replicate-edge-cluster",
        "replicate-target-cluster",
        "last-modified",
    }
)
_EDGE_STATUSES = (500, 502, 503, 504)
_EDGE_FALLBACK = 502


class Answer(msgspec.Struct, frozen=True):
    """Status, headers (lower case, only those that may be passed on) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_ok(self) -> bool:
        """Whether it is a success."""
        return self.status < 300

    @property
    def is_from_edge(self) -> bool:
        """Whether it is a page of what stands before the API, not an answer of the API.

        See docs/replicate-api.md, Errors.
        """
        return self.status >= 500 and not self._media_type.startswith("application/")

    @property
    def is_page(self) -> bool:
        """Whether it is an error told in HTML: the CDN's 413 and its refusals are such, too.

        See docs/replicate-api.md, Errors.
        """
        return self.is_from_edge or (self.status >= 400 and self._media_type.startswith("text/html"))

    @property
    def _media_type(self) -> str:
        return self.headers.get("content-type", "").strip().lower()


def passable(headers: Mapping[str, str]) -> dict[str, str]:
    """Keep the headers that may be passed on, with their names in lower case."""
    return {name.lower(): value for name, value in headers.items() if name.lower() in PASSED_HEADERS}


def as_json(answer: Answer) -> Answer:
    """Turn an HTML error page into a problem document; leave every answer of the API as it is."""
    if not answer.is_page:
        return answer
    status = answer.status if answer.status in _EDGE_STATUSES or answer.status < 500 else _EDGE_FALLBACK
    headers = {name: value for name, value in answer.headers.items() if name == "retry-after"}
    body = problem(status, "Upstream error", f"Replicate answered {answer.status} with a page instead of JSON.")
    return Answer(status, headers | {"content-type": CONTENT_TYPE}, body)


def retry_after_seconds(answer: Answer) -> float | None:
    """Read when upstream wants to be asked again: from `Retry-After`, else from the body's `retry_after`."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        seconds = msgspec.json.decode(answer.body, type=_Throttled).retry_after
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return seconds if seconds >= 0 else None


class _Throttled(msgspec.Struct):
    retry_after: float
