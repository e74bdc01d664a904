"""Problem documents in Replicate's form: `title`, `detail`, `status`, `request_id` and optional fields.

See docs/replicate-api.md, Errors.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

from gateway.errors import InvalidField

CONTENT_TYPE = "application/problem+json"
_encode = msgspec.json.Encoder().encode


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    invalid_fields: Sequence[InvalidField] = (),
    retry_after: int | None = None,
    limit: Mapping[str, object] | None = None,
    request_id: str | None = None,
    is_of_record: bool = True,
) -> bytes:
    """Return a problem document. `retry_after` is in seconds, `limit` describes the exceeded limit.

    The `request_id` is left out of a 404 that `is_of_record`: the documents of unknown ids and of ids of other teams
    are byte-identical.
    """
    body: dict[str, object] = {"title": title, "detail": detail, "status": status}
    if request_id is not None and not (is_of_record and status == HTTPStatus.NOT_FOUND):
        body["request_id"] = request_id
    if invalid_fields:
        body["invalid_fields"] = [field._asdict() for field in invalid_fields]
    if retry_after is not None:
        body["retry_after"] = retry_after
    if limit is not None:
        body["limit"] = limit
    return _encode(body) + b"\n"
