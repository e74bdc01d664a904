"""A response of upstream, and which parts of it are passed on to callers."""

from collections.abc import Mapping

import msgspec

from gateway.domain.problems import CONTENT_TYPE, problem

# Headers that describe the response itself, and the account's rate limit, which the gateway reads. Those about
# upstream's servers, cookies, CDN and connection are dropped.
KEPT_HEADERS = frozenset(
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
_FIRST_ERROR = 400


class Answer(msgspec.Struct, frozen=True):
    """Status, headers (lower case, only `KEPT_HEADERS`) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_ok(self) -> bool:
        """Whether the status is a success."""
        return self.status < 300

    @property
    def shown_headers(self) -> dict[str, str]:
        """The headers that callers see: without the rate limit of the account, which all teams share."""
        return {name: value for name, value in self.headers.items() if not name.startswith("ratelimit-")}

    @property
    def is_from_edge(self) -> bool:
        """Whether it is an error of a proxy in front of the API, not of the API.

        See docs/replicate-api.md, Errors.
        """
        return self.status >= 500 and not self._media_type.startswith("application/")

    @property
    def is_page(self) -> bool:
        """Whether it is an error in HTML, such as the CDN's 413 and 403.

        See docs/replicate-api.md, Errors.
        """
        return self.is_from_edge or (self.status >= 400 and self._media_type.startswith("text/html"))

    @property
    def _media_type(self) -> str:
        return self.headers.get("content-type", "").strip().lower()


def passable(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that are passed on, with names in lower case."""
    passed = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in KEPT_HEADERS:
            passed[lower] = value
    return passed


def as_json(answer: Answer) -> Answer:
    """Replace an HTML error page by a problem document. Responses of the API stay unchanged."""
    if answer.status < _FIRST_ERROR or not answer.is_page:
        return answer
    status = answer.status if answer.status in _EDGE_STATUSES or answer.status < 500 else _EDGE_FALLBACK
    headers = {name: value for name, value in answer.headers.items() if name == "retry-after"}
    body = problem(status, "Upstream error", f"Replicate answered {answer.status} with an HTML page instead of JSON.")
    return Answer(status, headers | {"content-type": CONTENT_TYPE}, body)


def retry_after_seconds(answer: Answer) -> float | None:
    """Return the seconds until a retry, from `Retry-After`, else from the body's `retry_after`; `None` if absent."""
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
