"""Bad input, row by row: a clear problem for the caller, and silence upstream."""

import gzip
import zlib
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.bad_input import JSON, MAX_BODY, MAX_UPLOAD, files_of
from tests.support.http_calls import Reply, assert_problem, raw_request, send_raw
from tests.support.samples import FORM, HEX, content, form
from tests.support.stack import Stack


@dataclass(frozen=True)
class Row:
    """A bad request and what becomes of it."""

    what: str
    status: int
    says: str
    method: str = "POST"
    target: str | bytes = "/v1/predictions"
    headers: tuple[tuple[str | bytes, str | bytes], ...] = (JSON,)
    body: bytes | None = None
    fields: tuple[str, ...] | None = None
    chunked: bool = False

    def __str__(self) -> str:
        return self.what


def create_row(what: str, status: int, says: str, body: bytes, *fields: str, **more: Any) -> Row:
    return Row(what, status, says, body=body, fields=fields or None, **more)


def body(text: str) -> bytes:
    return text.replace("V", HEX).encode()


GOOD = body('{"version":"V","input":{}}')
MALFORMED = [
    create_row("no body", 400, "JSON: EOF", b""),
    create_row("spaces only", 400, "JSON: EOF", b"  \n"),
    create_row("a truncated object", 400, "JSON", body('{"version":"V","input":{')),
    create_row("two objects", 400, "JSON", GOOD + GOOD),
    create_row("trailing comma", 400, "JSON", body('{"version":"V","input":{},}')),
    create_row("single quotes", 400, "JSON", b"{'version':'x'}"),
    create_row("a form", 400, "JSON", b"version=x&input=y"),
    create_row("random bytes", 400, "JSON", bytes(range(128, 256))),
    create_row("a lone surrogate", 400, "JSON", b'{"version":"\xed\xa0\x80","input":{}}'),
    create_row("UTF-16", 400, "JSON", GOOD.decode().encode("utf-16")),
    create_row("a byte order mark", 400, "JSON", b"\xef\xbb\xbf" + GOOD),
    create_row("NaN", 400, "JSON", body('{"version":"V","input":{"a":NaN}}')),
    create_row("control characters in a string", 400, "JSON", body('{"version":"V","input":{"a":"\x01"}}')),
    create_row("unclosed nesting", 422, "max_depth", b'{"input":' + b"[" * 30_000),
    create_row("deep nesting", 422, "max_depth", b'{"input":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    create_row("an array", 400, "expected an object, got array", b"[]"),
    create_row("a string", 400, "expected an object, got string", b'"x"'),
    create_row("a number", 400, "expected an object, got number", b"7"),
    create_row("null", 400, "expected an object, got null", b"null"),
]
WRONG = [
    create_row("an empty object", 422, "version is required", b"{}", "", ""),
    create_row("no version", 422, "version is required", b'{"input":{}}', ""),
    create_row("no input", 422, "input is required", body('{"version":"V"}'), ""),
    create_row("input a string", 422, "Expected: object, given: string", body('{"version":"V","input":"x"}'), "input"),
    create_row("input an array", 422, "Expected: object, given: array", body('{"version":"V","input":[]}'), "input"),
    create_row("input null", 422, "Expected: object, given: null", body('{"version":"V","input":null}'), "input"),
    create_row("version a number", 422, "Expected: string, given: number", b'{"version":7,"input":{}}', "version"),
    create_row("version null", 422, "Expected: string, given: null", b'{"version":null,"input":{}}', "version"),
    create_row("version empty", 422, "version is", b'{"version":"","input":{}}', "version"),
    create_row("version in upper case", 422, "version is", body('{"version":"V","input":{}}').upper().replace(
        b'"VERSION"', b'"version"').replace(b'"INPUT"', b'"input"'), "version"),
    create_row("version a path", 422, "version is", b'{"version":"../account","input":{}}', "version"),
    create_row("version with an extra slash", 422, "version is", b'{"version":"a/b/c","input":{}}', "version"),
    create_row("version with a line break", 422, "version is", b'{"version":"acme/slow\\n","input":{}}', "version"),
    create_row("version with a null", 422, "version is", b'{"version":"acme/sl\\u0000w","input":{}}', "version"),
    create_row("version too short", 422, "version is", b'{"version":"acme/slow:abc","input":{}}', "version"),
    create_row("an unknown field", 422, "Additional property model is not allowed",
               body('{"version":"V","input":{},"model":"a/b"}'), ""),
    create_row("two unknown fields", 422, "Additional property b is not allowed",
               body('{"version":"V","input":{},"a":1,"b":2}'), "", ""),
    create_row("an unknown field with an odd name", 422, "is not allowed",
               body('{"version":"V","input":{},"\\u0000\\n\\u202e":1}'), ""),
    create_row("an unknown field with a long name", 422, "is not allowed",
               body('{"version":"V","input":{},"' + "x" * 5000 + '":1}'), ""),
    create_row("stream a word", 422, "Expected: boolean", body('{"version":"V","input":{},"stream":"yes"}'), "stream"),
    create_row("webhook a number", 422, "Expected: string", body('{"version":"V","input":{},"webhook":1}'), "webhook"),
    create_row("webhook over http", 422, "HTTPS", body('{"version":"V","input":{},"webhook":"http://a.example"}'),
               "webhook"),
    create_row("webhook to a file", 422, "an https or http URL", body('{"version":"V","input":{},"webhook":"file:///etc/x"}'),
               "webhook"),
    create_row("webhook with a password", 422, "a user name or password",
               body('{"version":"V","input":{},"webhook":"https://a:b@c.example"}'), "webhook"),
    create_row("webhook with a bad port", 422, "a port from 1 to 65535",
               body('{"version":"V","input":{},"webhook":"https://c.example:99999/"}'), "webhook"),
    create_row("webhook with an open bracket", 422, "a valid host and port",
               body('{"version":"V","input":{},"webhook":"https://[::1"}'), "webhook"),
    create_row("webhook with a line break", 422, "line breaks",
               body('{"version":"V","input":{},"webhook":"https://a.example/\\r\\nX: y"}'), "webhook"),
    create_row("webhook too long", 422, "2048 characters",
               body('{"version":"V","input":{},"webhook":"https://a.example/' + "x" * 3000 + '"}'), "webhook"),
    create_row("events a string", 422, "Expected: array",
               body('{"version":"V","input":{},"webhook_events_filter":"start"}'), "webhook_events_filter"),
    create_row("events of numbers", 422, "array of strings",
               body('{"version":"V","input":{},"webhook_events_filter":[1]}'), "webhook_events_filter"),
    create_row("events unknown", 422, "must be one of",
               body('{"version":"V","input":{},"webhook_events_filter":["end"]}'), "webhook_events_filter"),
    create_row("several mistakes at once", 422, "stream", body('{"version":7,"input":[],"stream":1,"x":0}'),
               "", "input", "version", "stream"),
    create_row("a version on the model's route", 422, "Additional property version is not allowed", GOOD, "",
               target="/v1/models/acme/official-storyteller/predictions"),
    create_row("a version on the deployment's route", 422, "Additional property version is not allowed", GOOD, "",
               target="/v1/deployments/acme/story-service/predictions"),
    create_row("a training without destination", 422, "destination is required", b'{"input":{}}', "",
               target=f"/v1/models/acme/storyteller/versions/{HEX}/trainings"),
    create_row("webhook_completed a number", 422, "Expected: string",
               body('{"version":"V","input":{},"webhook_completed":1}'), "webhook_completed"),
    create_row("webhook_completed over http", 422, "webhook_completed must be an HTTPS URL",
               body('{"version":"V","input":{},"webhook_completed":"http://a.example"}'), "webhook_completed"),
    create_row("a token with text as its lifetime", 422, "ttl_seconds", b'{"ttl_seconds":"60"}', "ttl_seconds",
               target="/gateway/tokens"),
    create_row("a token with an unknown field", 422, "other", b'{"ttl_seconds":60,"other":1}', "",
               target="/gateway/tokens"),
    create_row("a token for a year", 422, "from 10 to 3600", b'{"ttl_seconds":31536000}', "ttl_seconds",
               target="/gateway/tokens"),
    create_row("a token with a negative lifetime", 422, "from 10 to 3600", b'{"ttl_seconds":-1}', "ttl_seconds",
               target="/gateway/tokens"),
    create_row("a token request that is no JSON", 400, "JSON", b"{", target="/gateway/tokens"),
    create_row("a token with tags that are no texts", 422, "tags", b'{"ttl_seconds":60,"tags":{"a":1}}', "tags[...]",
               target="/gateway/tokens"),
    create_row("a token with an unknown tag", 422, "there is no tag", b'{"ttl_seconds":60,"tags":{"a":"b"}}', "tags",
               target="/gateway/tokens"),
    create_row("a token for no user", 422, "user", b'{"ttl_seconds":60,"user":""}', "user", target="/gateway/tokens"),
]  # fmt: skip


def header_row(name: str, value: str | bytes, status: int = 422, says: str = "", **more: Any) -> Row:
    says = says or f"{name} is not valid"
    return Row(f"{name}: {value!r}", status, says, headers=(JSON, (name, value)), body=GOOD, **more)


HEADERS = [
    *(
        header_row("Cancel-After", value)
        for value in ("0", "4", "4s", "-10", "1.5h", "25h", "86401", "10x", "s", "h", "1m30", "30s1m", "1 m", "9" * 40,
                      "10s,10s", "")
    ),
    header_row("Gateway-User", "", 422, "Gateway-User"),
    header_row("Gateway-User", "x" * 201, 422, "Gateway-User"),
    header_row("Gateway-User", "a\tb", 422, "Gateway-User"),
    header_row("Gateway-Tags", "project=apollo"),
    header_row("Gateway-Tags", b"\xff"),
    Row("a token as text/plain", 415, "application/json", target="/gateway/tokens",
        headers=(("Content-Type", "text/plain"),), body=b'{"ttl_seconds":60}'),
    Row("an estimate as a form", 415, "application/json", target="/gateway/estimate",
        headers=(("Content-Type", "application/x-www-form-urlencoded"),), body=GOOD),
    Row("text under any content type", 400, "JSON", headers=(("Content-Type", "text/plain"),), body=b"hello"),
    Row("JSON for an upload", 415, "multipart/form-data", target="/v1/files", body=b"{}"),
    header_row("Content-Encoding", "compress", 415, "content coding"),
    header_row("Content-Encoding", "gzip, gzip", 415, "content coding"),
    header_row("Content-Encoding", "x-gzip", 415, "content coding"),
    header_row("Content-Encoding", "gzip", 400, "could not be read"),
    header_row("Content-Encoding", "deflate", 400, "could not be read"),
    Row("truncated gzip", 400, "", headers=(JSON, ("Content-Encoding", "gzip")), body=gzip.compress(GOOD * 100)[:60]),
    header_row("Expect", "200-ok", 417, "Expectation"),
    header_row("Expect", b"\xff", 417, "Expectation"),
]  # fmt: skip
SIZES = [
    Row("a body over the limit", 413, str(MAX_BODY), body=b" " * (MAX_BODY + 1)),
    Row("a chunked body over the limit", 413, str(MAX_BODY), body=b" " * (MAX_BODY + 1), chunked=True),
    Row("a gzip bomb", 413, str(MAX_BODY), headers=(JSON, ("Content-Encoding", "gzip")),
        body=gzip.compress(b" " * 40_000_000, 9)[: MAX_BODY - 1]),
    Row("a gzip bomb in chunks", 413, str(MAX_BODY), headers=(JSON, ("Content-Encoding", "gzip")),
        body=gzip.compress(b" " * 20_000_000, 9), chunked=True),
    Row("a deflate bomb", 413, str(MAX_BODY), headers=(JSON, ("Content-Encoding", "deflate")),
        body=zlib.compress(b" " * 20_000_000, 9)),
    Row("an endless search", 413, str(MAX_BODY), method="QUERY", target="/v1/models",
        headers=(("Content-Type", "text/plain"),), body=b"a" * (MAX_BODY + 1)),
    Row("an endless patch", 413, str(MAX_BODY), method="PATCH", target="/v1/models/acme/storyteller",
        body=b" " * (MAX_BODY + 1), chunked=True),
]  # fmt: skip
QUERIES = [
    Row(f"GET {target[:60]}", 404 if "cursor" in says else 400, says, method="GET", target=target, headers=())
    for target, says in (
        ("/v1/predictions?cursor=x", "Invalid cursor"),
        ("/v1/predictions?cursor=" + "A" * 300, "Invalid cursor"),
        ("/v1/predictions?cursor=cD0y", "Invalid cursor"),
        ("/v1/predictions?cursor=%FF%FE", "Invalid cursor"),
        ("/v1/predictions?cursor=cD0xLjAlN0NhYmMm", "Invalid cursor"),
        ("/v1/trainings?cursor=../x", "Invalid cursor"),
        ("/v1/files?cursor=%00", "Invalid cursor"),
        ("/v1/predictions?created_after=yesterday", "created_after is not valid"),
        ("/v1/predictions?created_after=2024-13-01", "created_after is not valid"),
        ("/v1/predictions?created_after=2024-02-30T00:00:00Z", "created_after is not valid"),
        ("/v1/predictions?created_after=0000-01-01", "created_after is not valid"),
        ("/v1/predictions?created_after=2024-01-01T00:00:00%2B99:99", "created_after is not valid"),
        ("/v1/predictions?created_before=1700000000", "created_before is not valid"),
        ("/v1/predictions?created_before=" + "9" * 500, "created_before is not valid"),
        ("/v1/predictions?source=api", "source"),
    )
]
NO_CONTENT = b'--frontier\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{}\r\n'
NAMED = b'Content-Disposition: form-data; name="content"; filename="x"\r\n'
NESTED = b"--frontier\r\nContent-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\n\r\nx\r\n--inner--\r\n"


def upload_row(what: str, status: int, says: str, data: bytes, content_type: str = FORM, **more: Any) -> Row:
    return Row(what, status, says, target="/v1/files", headers=(("Content-Type", content_type),), body=data, **more)


UPLOADS = [
    upload_row("no boundary", 400, "malformed", form(content()), "multipart/form-data"),
    upload_row("another boundary", 400, "malformed", form(content()), "multipart/form-data; boundary=other"),
    upload_row("a boundary too long", 400, "malformed", form(content()), f"multipart/form-data; boundary={'b' * 300}"),
    upload_row("nothing at all", 400, "malformed", b""),
    upload_row("cut within a part", 400, "malformed", content(data=b"x" * 1000)[:300]),
    upload_row("cut within the headers", 422, "needs a name", content()[:40]),
    upload_row("not closed", 400, "malformed", content()),
    upload_row("nested", 400, "nested", form(NESTED)),
    upload_row("garbage", 400, "malformed", bytes(range(256)) * 10),
    upload_row("no content", 422, "content is required", form(NO_CONTENT), fields=("content",)),
    upload_row("content twice", 422, "twice", form(content(), content()), fields=("content",)),
    upload_row("a part too many", 400, "too many", form(*[NO_CONTENT] * 20)),
    upload_row("an unknown part alone", 422, "content is required",
               form(content().replace(b'"content"', b'"other"')), fields=("content",)),
    upload_row("nested under a name", 400, "nested", form(NESTED.replace(b"Content-Type", NAMED + b"Content-Type"))),
    upload_row("a part without a name", 422, "needs a name", form(content().replace(b'name="content"; ', b"")),
               fields=("",)),
    upload_row("a name of 256 bytes", 422, "longer than 255", form(content(name="n" * 256)), fields=("content",)),
    upload_row("a name of 86 signs of 3 bytes", 422, "longer than 255", form(content(name="\u20ac" * 86)),
               fields=("content",)),
    upload_row("a header of a part too long", 400, "malformed",
               form(content().replace(b"text/plain", b"t" * 20_000))),
    upload_row("headers of a part too many", 400, "malformed",
               form(content().replace(b"Content-Type", b"X: y\r\n" * 200 + b"Content-Type"))),
    upload_row("larger than may be uploaded", 413, "100MB", form(content(data=b"x" * (MAX_UPLOAD + 1)))),
    upload_row("larger than may be uploaded, in chunks", 413, "100MB", form(content(data=b"x" * (MAX_UPLOAD + 1))),
               chunked=True),
    upload_row("metadata larger than a megabyte", 413, "", form(NO_CONTENT.replace(b"{}", b" " * 1_100_000))),
]  # fmt: skip
PATHS = [
    Row(f"{method} {target!r}"[:70], 404, "could not be found", method=method, target=target, headers=())
    for method, target in (
        ("GET", "/v1/predictions/../account"),
        ("GET", "/v1/predictions/./"),
        ("GET", "/v1/predictions/%2e%2e/account"),
        ("GET", "/v1/%2e%2e/v1/account"),
        ("GET", "/v1/predictions%2f" + "a" * 26),
        ("GET", "/v1/predictions/" + "a" * 26 + "%2fcancel"),
        ("GET", "/v1/predictions/%61" + "a" * 25),
        ("GET", "/v1/%61ccount"),
        ("GET", "//v1/account"),
        ("GET", "/v1//account"),
        ("GET", "/v1/account;x=y"),
        ("GET", "/v1/account%00"),
        ("GET", "/v1/account%0d%0aX:%20y"),
        ("GET", "/v1/account%20"),
        ("GET", "/v1/models/acme/..%2f..%2faccount"),
        ("GET", "/v1/models/../account"),
        ("GET", "/v1/models/acme/../account/versions"),
        ("GET", "/v1/models/acme/storyteller\\..\\account"),
        ("GET", "/v1/models/acme/caf%C3%A9"),
        ("GET", "/v1/models/-acme/x"),
        ("GET", "/outputs/" + "a" * 80),
        ("GET", "/v1/streams/" + "a" * 52 + "/more"),
        ("GET", "/v1/models/acme/" + "x" * 201),
        ("GET", "/v1/predictions/" + "a" * 25),
        ("GET", "/v1/predictions/" + "A" * 26),
        ("GET", "/v1/files/short"),
        ("GET", "/v1/files/" + "x" * 101),
        ("GET", "/v1/streams/" + "a" * 51),
        ("GET", "http://gateway.test/v1/../account"),
        ("GET", "http://gateway.test/v1/%2e%2e/account"),
        ("GET", "http://elsewhere.test//account"),
        ("DELETE", "/v1/files/../files/" + "a" * 48),
    )
]
METHODS = [
    Row(f"{method} {target}", 405, f'Method "{method}" not allowed.', method=method, target=target, headers=())
    for method, target in (
        ("PUT", "/v1/predictions"),
        ("DELETE", "/v1/predictions"),
        ("PATCH", "/v1/predictions/" + "a" * 26),
        ("DELETE", "/v1/predictions/" + "a" * 26),
        ("GET", "/v1/predictions/" + "a" * 26 + "/cancel"),
        ("POST", "/v1/account"),
        ("DELETE", "/v1/models"),
        ("POST", "/v1/models/acme/storyteller"),
        ("PUT", "/v1/files/" + "a" * 48),
        ("POST", "/v1/streams/" + "a" * 52),
        ("GET", "/gateway/tokens"),
        ("POST", "/healthz"),
        ("TRACE", "/v1/account"),
        ("PROPFIND", "/v1/files"),
    )
]
NO_ROUTES = [
    Row(f"{method} {target!r}"[:70], 404,
        f"There is no such route: {method} {shown}. /openapi.json lists the gateway's own routes; "
        "those below /v1 are Replicate's.",
        method=method, target=target, headers=())
    for method, target, shown in (
        ("GET", "/v1/account/", "/v1/account/"),
        ("GET", "/v1/v1/v1/account", "/v1/v1/v1/account"),
        ("GET", "/v2/account", "/v2/account"),
        ("GET", "/V1/account", "/V1/account"),
        ("GET", "/", "/"),
        ("GET", "/metrics", "/metrics"),
        ("GET", "/v1/collections/a/b", "/v1/collections/a/b"),
        ("POST", "/v1/predictions/" + "a" * 26 + "/cancel/", "/v1/predictions/" + "a" * 26 + "/cancel/"),
        ("POST", "/v1/predictions/" + "a" * 26 + "/Cancel", "/v1/predictions/" + "a" * 26 + "/Cancel"),
        ("PROPFIND", "/v1/nothing", "/v1/nothing"),
        ("GET", "/v1/chat/completions?model=x", "/v1/chat/completions"),
        ("GET", "/v1", "/v1"),
        ("GET", "/" + "x" * 200, "/" + "x" * 99 + "…"),
    )
]  # fmt: skip
ROWS = [*MALFORMED, *WRONG, *HEADERS, *SIZES, *QUERIES, *UPLOADS, *PATHS, *NO_ROUTES, *METHODS]


def pieces(row: Row, key: str) -> bytes | list[bytes]:
    if not row.chunked:
        return raw_request(row.method, row.target, row.headers, row.body, key=key)
    assert row.body is not None
    head = raw_request(row.method, row.target, (*row.headers, ("Transfer-Encoding", "chunked")), key=key)
    size = 8192
    cut = [row.body[at : at + size] for at in range(0, len(row.body), size)]
    return [head, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut), b"0\r\n\r\n"]


# A gateway serves a batch of rows: one for each would take longer than the rows.
BATCH = 10
BATCHES = [ROWS[at : at + BATCH] for at in range(0, len(ROWS), BATCH)]


@pytest.mark.parametrize("rows", BATCHES, ids=lambda rows: f"from {rows[0]} to {rows[-1]}"[:120])
async def test_bad_input_gets_a_problem_document_and_reaches_no_upstream(small: Stack, rows: list[Row]):
    """A caller's mistake is reported in Replicate's words, readable by a page, and costs nothing upstream."""
    for row in rows:
        reply = await send_raw(small, pieces(row, small.keys["alpha"]))
        try:
            judge(small, row, reply)
        except AssertionError as exc:
            raise AssertionError(f"{row}: {exc}") from exc


def judge(stack: Stack, row: Row, reply: Reply) -> None:
    if row.method == "HEAD":
        assert reply.status == row.status
        return
    problem = assert_problem(reply, row.status)
    assert row.says in problem["detail"]
    if row.fields is not None:
        assert sorted(field["field"] for field in problem["invalid_fields"]) == sorted(row.fields)
        assert all(field["type"] and field["description"] for field in problem["invalid_fields"])
    if row.status == 405:
        assert "OPTIONS" in reply.headers["Allow"]
    # An upload is on its way up before its end is known; it must not have become a file.
    assert not stack.upstream.requests.count(origin="api") or row in UPLOADS
    assert not files_of(stack)
    stack.upstream.requests.clear()
