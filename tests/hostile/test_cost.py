"""What a caller or upstream sends costs no more than in proportion to its length.

A table of entry points (whatever parses foreign text) and of kinds of input (`tests/support/hostile.py`): each pair is
a test, which compares the CPU time for an input of n with that for 4 n. A refusal is as good as an answer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from gateway.access.browser_tokens import TokenRequest, TokenService
from gateway.access.rules import api_keys
from gateway.domain import (
    addresses,
    cache_directives,
    cursors,
    documents,
    json_scan,
    large_json,
    links,
    rendering,
    scopes,
    surrogates,
    targets,
    tickets,
    times,
    trace_context,
)
from gateway.domain.create_body import parse_create, parse_object
from gateway.domain.keyed_digest import KeyedDigest
from gateway.domain.records import PredictionView, Source, Status
from gateway.domain.upstream_response import Answer, as_json, retry_after_seconds
from gateway.files.rules import uploads
from gateway.http import content_coding, form_parts, prefer
from gateway.models.rules import secrets
from gateway.models.rules.schema import read_schema
from gateway.money.rules import estimates, numbers, usage
from gateway.outputs.rules import outputs, ranges
from gateway.predictions.rules import adoption, run_times
from gateway.runtime.clock import SystemClock
from gateway.sharing.rules import caching, data_uris, determinism, fingerprint
from gateway.streams.rules import replay, resume
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.sse import is_idle_timeout, read_event
from gateway.throttling.rules.adaptive_rate import read_throttle
from gateway.upstream import hosts, retry
from gateway.webhooks.rules import events
from tests.support import records
from tests.support.growth import assert_linear
from tests.support.hostile import TEXTS, VALUES, keys, long_unless, string
from tests.support.replays import replay as replayed

BASE = "https://api.replicate.com/v1"
TRUSTED = ("*.replicate.com", "replicate.delivery", "*.replicate.delivery")
VERSION = "0123456789abcdef" * 4
ID = "p" * 26
AT = "2024-04-22T11:15:14.469Z"
MOST_HEADER = 65_536
"""Longest header that any setting admits."""

Work = Callable[[Any], object]
"""What is measured. It takes a text, or the bytes of a JSON value."""


def _is_trusted(url: str) -> bool:
    return hosts.is_trusted(url, BASE, TRUSTED)


def _is_output(url: str) -> bool:
    return hosts.is_output(url, BASE, TRUSTED)


def _ranges(text: str) -> object:
    names = ("If-Match", "If-None-Match", "If-Range", "Range", "If-Modified-Since", "If-Unmodified-Since")
    return [ranges.select({name: text}, etag='"x"', modified_at=0, size=100) for name in names]


def _cache_headers(text: str) -> None:
    for arguments in ((text, None, None), (None, text, None), (None, None, text)):
        try:
            cache_directives.read(*arguments, honor_cache_control=True)
        except ValueError:
            continue


_TOKEN = b"r8_" + b"Az09" * 10
_DIGEST = KeyedDigest(b"s" * 32, "inputs")
_TOKENS = TokenService(b"s" * 32, SystemClock())

HEADERS: Mapping[str, Work] = {
    "Prefer": lambda text: prefer.parse_prefer([text]),
    "Accept-Encoding": lambda text: content_coding.choose(text, 10_000),
    "Origin of a page": lambda text: list(scopes.patterns_of("https://" + text)),
    "Cancel-After": prefer.parse_cancel_after,
    "Gateway-Cache and Cache-Control": _cache_headers,
    "Range and conditions": _ranges,
    "traceparent": trace_context.parse,
    "Authorization: a key": lambda text: api_keys.parse(text) or api_keys.digest(text),
    "Authorization: a token": _TOKENS.read,
    "Origin": scopes.normal_origin,
    "Retry-After of upstream": lambda text: retry_after_seconds(Answer(429, {"retry-after": text}, b"{}")),
    "Content-Type of a file": outputs.content_type,
}
"""What comes in a header or a query."""


def _mint(text: str) -> object:
    asked = b'{"ttl_seconds":60,"models":[%b],"user":"x"}' % string(text)
    return msgspec.json.decode(asked, type=TokenRequest)


TEXT: Mapping[str, Work] = {
    "a time": times.parse,
    "a time in nanoseconds": times.nanoseconds,
    "a cursor": cursors.decode,
    "a version": targets.parse_version,
    "a model name": targets.is_model_name,
    "a model on an allow-list": lambda text: targets.allows(("acme/*-x-*", "*/flux*", text[:250]), text[:300]),
    "a model pattern": lambda text: scopes.is_pattern(text) and scopes.covers("*/*", text),
    "an address": lambda text: addresses.is_allowed_host(text, allow_private=False),
    "an output ticket": tickets.read_output_ticket,
    "a link of a page": lambda text: links.lead_back(text, BASE),
    "a stream's address": _is_trusted,
    "an output's address": _is_output,
    "an output's name": lambda text: outputs.disposition("https://replicate.delivery/" + text),
    "a data URI": data_uris.content_of,
    "a log line": api_keys.conceal,
    "an event id": lambda text: resume.resume(EventLog(4096), text),
    "an event": lambda text: read_event(_raw(text)),
    "an event's data": lambda text: read_event(_raw(text)).data(),
    "a comment": lambda text: is_idle_timeout(read_event(_raw(text))),
    "an event of the gateway": lambda text: replay.frame("output", "1:1", text),
    "a number": lambda text: numbers.read(_raw(text)),
    "a webhook": lambda text: parse_create(_create(b'"x"', string(text)), "version"),
    "a token request": _mint,
    "a secret value": lambda text: secrets.strike_document(_document(string(text), "logs"), (text,)),
    "a secret value in a message": lambda text: secrets.strike(_raw(text), (text,)),
    "a text that can be secret": lambda text: secrets.are_quoted(_document(string(text), "logs"), (text,)),
    "a part's disposition": lambda text: form_parts.read_disposition(f'form-data; name="{text}"; {text}'[:8190]),
}
"""What comes in a body, a path, or an answer of upstream."""


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _create(value: bytes, webhook: bytes = b"null") -> bytes:
    return b'{"version":"%b","input":{"x":%b},"webhook":%b}' % (VERSION.encode(), value, webhook)


def _input(value: bytes) -> bytes:
    return b'{"x":%b,"seed":1}' % value


def _document(value: bytes, name: str = "output", status: str = "succeeded") -> bytes:
    fields = {"id": string(ID), "status": string(status), "urls": b"{}", "created_at": string(AT), name: value}
    return b"{" + b",".join(b'"%b":%b' % (key.encode(), each) for key, each in fields.items()) + b"}"


def _page(value: bytes) -> object:
    page = links.split_page(b'{"previous":null,"next":%b,"results":[%b]}' % (value, value))
    return page and page.render(BASE)


def _schema(value: bytes, place: str) -> object:
    inputs = {
        "properties": b'{"type":"object","properties":%b}' % value,
        "default": b'{"type":"object","properties":{"a":{"default":%b}}}' % value,
        "type": b'{"type":"object","properties":{"a":{"type":%b}}}' % value,
        "allOf": b'{"allOf":%b}' % value,
    }[place]
    return read_schema(b'{"openapi_schema":{"components":{"schemas":{"Input":%b}}}}' % inputs)


def _path_of(value: bytes) -> object:
    """Name the place of a link, which is looked for once it is known to be somebody else's."""
    return links.path_of(msgspec.json.decode(value), "no such link")


def _sets_seed(given: bytes) -> bool:
    return determinism.sets_seed(determinism.read_controls(given), (-1,))


def _fits(value: bytes) -> adoption.Fit:
    intent = records.intent(request=_create(value))
    return adoption.fits(intent, documents.read_snapshot(_document(value, "input")))


def _progress(value: bytes) -> object:
    return [events.snapshot_of(_view(_document(value, name))) for name in ("output", "logs")]


def _read(value: bytes) -> object:
    return [documents.read_snapshot(_document(value, name)) for name in ("output", "logs", "metrics")]


def _view(document: bytes) -> PredictionView:
    return PredictionView(records.prediction(source=Source.HIT), records.ended(document=document))


def _show(value: bytes) -> object:
    view = _view(_document(value))
    return rendering.render(view, BASE, "streams/x", family="predictions", links={"https://x.example": "y"})


def _replayed(value: bytes) -> object:
    return replayed(_document(value), 0.0)


def _with_links(value: bytes) -> object:
    return replay.with_links(replayed(_document(value), 0.0), {"x": "y"})


BODIES: Mapping[str, Work] = {
    "a create's input": lambda value: parse_create(_create(value), "version"),
    "a create's webhook": lambda value: parse_create(_create(b"0", value), "version"),
    "a create's event filter": lambda value: parse_create(
        b'{"input":{},"version":"a/b","webhook_events_filter":%b}' % value, "version"
    ),
    "a create's unknown field": lambda value: parse_create(b'{"input":{},"y":%b}' % value, "version"),
    "a create as a whole": lambda value: parse_create(value, "version"),
    "an object": parse_object,
    "file links": lambda value: links.file_links(_input(value)),
    "file links replaced": lambda value: links.translate(_input(value), {"http://a/v1/files/none": "x"}),
    "addresses": lambda value: list(links.addresses(_input(value))),
    "the place of a link": _path_of,
    "a seed": lambda value: _sets_seed(b'{"seed":%b}' % value),
    "the inputs that decide": lambda value: _sets_seed(_input(value)),
    "a canonical input": lambda value: fingerprint.Input(_input(value), {}).canonical(None),
    "an estimate": lambda value: estimates.requested_size(b'{"num_outputs":%b}' % value),
    "a search for secrets": lambda value: json_scan.holds(value, (_TOKEN,)),
    "a token request": lambda value: msgspec.json.decode(b'{"ttl_seconds":%b}' % value, type=TokenRequest),
    "a form's metadata": lambda value: uploads.metadata_of({"metadata": value}),
    "upstream's prediction": _read,
    "upstream's times": lambda value: [
        documents.times_of(_document(value, name)) for name in ("started_at", "completed_at")
    ],
    "upstream's urls": lambda value: rendering.render_foreign(_document(value, "urls"), BASE, "predictions"),
    "a very large document": lambda value: large_json.split(_document(value), ("output",)),
    "the logs of a very large document": lambda value: large_json.find(_document(value), b'"logs"'),
    "progress": lambda value: documents.progress_of(_document(value)),
    "a prediction shown": _show,
    "a prediction without data": lambda value: documents.without_data(_document(value)),
    "a page": _page,
    "a file's document": lambda value: links.file_document(b'{"id":"abcdefghij","name":%b,"urls":{}}' % value, BASE),
    "a file that may stand for another": lambda value: uploads.can_reuse(
        records.file(document=b'{"name":%b,"content_type":"text/plain"}' % value),
        uploads.Described("a.txt", "text/plain", b"{}"),
    ),
    "usage": lambda value: usage.usage_of(_document(value), Status.SUCCEEDED),
    "metrics": lambda value: usage.usage_of(_document(b'{"predict_time":%b}' % value, "metrics"), Status.SUCCEEDED),
    "run times": lambda value: run_times.read(_document(value)),
    "an adopted run": _fits,
    "an input of unknown schema": lambda value: secrets.digest_texts(_input(value), _DIGEST),
    "a document with secrets": lambda value: secrets.strike_document(
        _document(value), ("secret-value", "x/&\u00e9xxxx")
    ),
    "webhook events": _progress,
    "a replay": _replayed,
    "a replay with other links": _with_links,
    "whether an output has links": caching.has_links,
    "the files of an output": lambda value: outputs.files_of(value, _is_output),
    "output links replaced": lambda value: links.replace_addresses(value, {"https://x.example": "y"}),
    "lone surrogates": surrogates.without_halves,
    "lone surrogates kept": lambda value: surrogates.split(_input(value)),
    "a schema's inputs": lambda value: _schema(value, "properties"),
    "a schema's default": lambda value: _schema(value, "default"),
    "a schema's type": lambda value: _schema(value, "type"),
    "a schema's alternatives": lambda value: _schema(value, "allOf"),
    "upstream's 429": lambda value: read_throttle(Answer(429, {}, b'{"detail":%b}' % value)),
    "upstream's error": lambda value: (
        retry_after_seconds(Answer(429, {}, b'{"retry_after":%b}' % value)),
        as_json(Answer(502, {"content-type": "text/html"}, value)),
        retry.is_worth_retrying(Answer(502, {}, value)),
    ),
}
"""What takes a JSON value, in the place where it may stand."""

_SAMPLED = 20
"""One pair of so many runs in `make test`, and the rest in `make test-long`."""


def rows(entries: Mapping[str, Work], kinds: Mapping[str, Callable[[int], Any]]) -> list[Any]:
    """Make a test of each pair.

    `make test` runs some kinds for each entry point, and each kind for some entry point.
    """
    made = []
    for place, (entry, work) in enumerate(entries.items()):
        for column, (kind, make) in enumerate(kinds.items()):
            is_sample = (place + column) % _SAMPLED == 0
            made.append(pytest.param(work, make, id=f"{entry}-{kind}", marks=long_unless(is_sample)))
    return made


@pytest.mark.parametrize(("work", "make"), rows(HEADERS, TEXTS))
def test_a_header_costs_in_proportion_to_its_length(work: Work, make: Callable[[int], str]) -> None:
    """No header blocks the gateway."""
    assert_linear(make, work, most=MOST_HEADER)


@pytest.mark.parametrize(("work", "make"), rows(TEXT, TEXTS))
def test_a_text_costs_in_proportion_to_its_length(work: Work, make: Callable[[int], str]) -> None:
    """No text blocks the gateway, in a body or in an answer of upstream."""
    assert_linear(make, work)


@pytest.mark.parametrize("unit", [b"%72", _TOKEN[:3].replace(b"_", b"%5f"), b"%", rb"\u002572"])
def test_a_search_for_percent_encoded_secrets_costs_in_proportion_to_the_length(unit: bytes) -> None:
    """Everybody knows how a token begins."""
    assert_linear(lambda n: unit * (n // len(unit)), lambda text: json_scan.holds(text, (_TOKEN,)))


@pytest.mark.parametrize(("work", "make"), rows(BODIES, VALUES))
def test_a_value_costs_in_proportion_to_its_length(work: Work, make: Callable[[int], bytes]) -> None:
    """No body blocks the gateway; nor does a model's output, logs, metrics or schema."""
    assert_linear(make, work)


def _many_references(n: int) -> bytes:
    """Write a schema of which half is references, and the other half one object that all of them name."""
    refs = b",".join([b'{"$ref":"#/components/schemas/Big"}'] * max(1, n // 72))
    big = keys(n // 2).replace(b":0", b":{}")
    schemas = b'{"Input":{"allOf":[%b]},"Big":{"properties":%b}}' % (refs, big)
    return b'{"openapi_schema":{"components":{"schemas":%b}}}' % schemas


def _references_in_circles(n: int) -> bytes:
    names = [b"S%d" % number for number in range(max(2, n // 120))]
    refs = b",".join(b'{"$ref":"#/components/schemas/%b"}' % name for name in names[:16])
    schemas = b",".join(b'"%b":{"allOf":[%b]}' % (name, refs) for name in (b"Input", *names))
    return b'{"openapi_schema":{"components":{"schemas":{%b}}}}' % schemas


@pytest.mark.parametrize("make", [_many_references, _references_in_circles], ids=["fans", "circles"])
def test_a_schema_of_references_costs_in_proportion_to_its_length(make: Callable[[int], bytes]) -> None:
    """Whoever publishes a model writes its schema. Small ones cost what the bound on their nodes admits."""
    assert_linear(make, read_schema, first=16_384, most=262_144)
