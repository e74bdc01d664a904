"""Errors with the recorded texts. Edge routes return problem documents, Django's routes only a `detail`."""

from typing import Any

import msgspec

PROBLEM_JSON = "application/problem+json"
NO_TOKEN = "You did not pass an authentication token"  # noqa: S105 - a message
WRONG_TOKEN = "You did not pass a valid authentication token"  # noqa: S105 - a message
CANNOT_PARSE = "Failed to parse request body as JSON: "


class Problem(Exception):
    """An error response. `django` errors are plain JSON without a status in the body."""

    def __init__(
        self, status: int, body: dict[str, Any], *, django: bool = False, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(body.get("detail", ""))
        self.status = status
        self.body = body
        self.django = django
        self.headers = headers or {}

    def encode(self) -> tuple[bytes, str]:
        """Return body and content type. Problem documents end with a newline."""
        if self.django:
            return msgspec.json.encode(self.body), "application/json"
        return msgspec.json.encode(self.body) + b"\n", PROBLEM_JSON


def not_found() -> Problem:
    """404 of edge routes."""
    return Problem(404, {"detail": "The requested resource could not be found.", "status": 404})


def django_not_found() -> Problem:
    """404 of Django's routes."""
    return Problem(404, {"detail": "Not found."}, django=True)


def file_not_found() -> Problem:
    """404 of file routes."""
    return Problem(404, {"detail": "File not found"})


def method_not_allowed(method: str, allowed: list[str]) -> Problem:
    """405 with the allowed methods."""
    return Problem(
        405, {"detail": f'Method "{method}" not allowed.'}, django=True, headers={"allow": ", ".join(allowed)}
    )


def unauthenticated(detail: str = NO_TOKEN) -> Problem:
    """401 for a missing or refused token."""
    return Problem(401, {"title": "Unauthenticated", "detail": detail, "status": 401})


def insufficient_credit() -> Problem:
    """402."""
    detail = (
        "You have insufficient credit to run this model. "
        "Go to https://replicate.com/account/billing#billing to purchase credit. "
        "Once you purchase credit, please wait a few minutes before trying again."
    )
    return Problem(402, {"title": "Insufficient credit", "detail": detail, "status": 402})


def forbidden(detail: str) -> Problem:
    """403. No recording has one, so its format is that of similar errors."""
    return Problem(403, {"title": "Forbidden", "detail": detail, "status": 403})


def unprocessable(title: str, detail: str) -> Problem:
    """422 without fields."""
    return Problem(422, {"title": title, "detail": detail, "status": 422})


def invalid_version() -> Problem:
    """422 for a version that does not exist, is not permitted, or must be given by id."""
    return unprocessable(
        "Invalid version or not permitted",
        "The specified version does not exist (or perhaps you don't have permission to use it?)",
    )


def invalid_input(fields: list[dict[str, str]]) -> Problem:
    """422 with all invalid fields; each is also a line of the detail."""
    lines = "".join(
        f"- {field['field']}: {field['description']}\n" if field["field"] else f"- {field['description']}\n"
        for field in fields
    )
    return Problem(422, {"detail": lines, "status": 422, "title": "Input validation failed", "invalid_fields": fields})


def throttled(retry_after: int, *, low_credit: bool = False) -> Problem:
    """429 with one of its two texts."""
    reduced = (
        "Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of 1 requests "
        "while you have less than $5.0 in credit. "
        if low_credit
        else ""
    )
    detail = f"Request was throttled. {reduced}Your rate limit resets in ~{retry_after}s."
    headers = {"Retry-After": str(retry_after)}
    return Problem(429, {"detail": detail, "status": 429, "retry_after": retry_after}, headers=headers)


def bad_json(detail: str) -> Problem:
    """400 for a body that is not a JSON object."""
    return Problem(400, {"detail": CANNOT_PARSE + detail, "status": 400})


def too_large() -> Problem:
    """413."""
    return Problem(413, {"detail": "Files must be less than 100MB in size"})


def html_page(status: int) -> bytes:
    """Return the error page of the CDN in front of the API."""
    names = {
        500: "Internal Server Error",
        502: "Bad Gateway",
        503: "Service Temporarily Unavailable",
        504: "Gateway Time-out",
    }
    name = names.get(status, "Web server is returning an unknown error")
    return (
        "<!DOCTYPE html>\n<html>\n<head>\n"
        f"<title>api.replicate.com | {status}: {name}</title>\n</head>\n<body>\n"
        f"<h1>{name}</h1>\n<p>Error code {status}</p>\n<hr><center>cloudflare</center>\n</body>\n</html>\n"
    ).encode()
