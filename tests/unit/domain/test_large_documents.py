"""What is said of a document does not depend on whether it is worked on at once or piece by piece."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain import documents, json_scan, large_bytes, large_json, links, rendering, surrogates
from gateway.domain.records import Status
from gateway.models.rules import secrets
from gateway.money.rules import usage
from gateway.sharing.rules import caching
from gateway.streams.rules import replay

LINK = "https://replicate.delivery/x/out-0.png"
TEXTS = st.lists(
    st.sampled_from(
        [r"\ud83d", r"\ude00", r"\uD83D", r"\ud83d\ude00", r"\\", r"\\ud83d", r"\"", r"\n", r"\ue000", "a", "é", "😀",
         "s3cret-value", "x" * 40, ",", "]", "{", "http://a/", r"\u0068ttp://", "%41", r"\/", "\0"]
    ),
    max_size=8,
).map(lambda pieces: '"' + "".join(pieces) + '"')  # fmt: skip
VALUES = st.recursive(
    st.one_of(TEXTS, st.sampled_from(["null", "1.50", "[]", "{}", f'"{LINK}"', "1e400", " 3 ", "-0", "9" * 50])),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: "[ " + ",".join(items) + "]")
        | st.lists(st.tuples(TEXTS, inner), max_size=4).map(
            lambda items: "{" + ",".join(f"{name} :{value}" for name, value in items) + "\n}"
        )
    ),
    max_leaves=12,
)
DOCUMENTS = st.tuples(VALUES, VALUES, TEXTS, VALUES, st.sampled_from(["", ",", "}", '"', "\\"]), st.booleans()).map(
    lambda given: (
        (
            '{"id":"a1","status":"succeeded","input":{},"urls":{"get":"https://a/v1/predictions/a1"},'
            '"completed_at":"2026-01-01T00:00:10Z",'
            f'"output":{given[0]},"error":{given[1]},"logs":{given[2]},"metrics":{{"predict_time":{given[3]}}}{given[4]}}}'
        ).encode()[: None if given[5] else -3]
        + b"\xff\n" * (len(given[2]) % 11 == 10)
    )
)


@contextmanager
def piece_by_piece() -> Iterator[None]:
    """Take every document for a very large one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(surrogates, "LARGE", 13)
        patched.setattr(surrogates, "_STEP", 13)
        patched.setattr(json_scan, "SLICE", 64)
        patched.setattr(large_json, "WHOLE", 0)
        patched.setattr(large_json, "STEP", 13)
        patched.setattr(large_bytes, "WHOLE", 30)
        patched.setattr(large_bytes, "STEP", 7)
        patched.setattr(documents, "_SLICE", 11)
        patched.setattr(replay, "_STEP", 3)
        surrogates.forget()
        yield
        surrogates.forget()


def shown(document: bytes) -> object:
    return rendering.render_foreign(document, "https://g/v1", "predictions")


SAYINGS: dict[str, Callable[[bytes], object]] = {
    "snapshot": documents.read_snapshot,
    "foreign": shown,
    "progress": documents.progress_of,
    "times": documents.times_of,
    "output": documents.output_of,
    "without data": documents.without_data,
    "shortened": documents.shortened,
    "failed": lambda document: documents.failed(document, "x"),
    "running": lambda document: documents.as_running(document, at_start=False),
    "usage": lambda document: usage.usage_of(document, Status.SUCCEEDED),
    "page": lambda document: links.split_page(document.replace(b'"id"', b'"next"')),
    "linked": lambda document: links.replace_addresses(document, {LINK: "https://g/x"}),
    "quoted": lambda document: secrets.are_quoted(document, ("s3cret-value",)),
    "events": lambda document: list(replay.events_of(document, 1.0)),
    "struck": lambda document: secrets.strike_document(document, ("s3cret-value",)),
}


@settings(max_examples=60)
@given(DOCUMENTS)
def test_same_is_said_of_a_document_piece_by_piece(document):
    """Fields, errors, replaced characters and every byte that is written."""
    found = {name: outcome(say, document) for name, say in SAYINGS.items()}
    with piece_by_piece():
        assert {name: outcome(say, document) for name, say in SAYINGS.items()} == found


@settings(max_examples=60)
@given(VALUES)
def test_links_are_never_missed_piece_by_piece(output):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(caching, "_LARGE", 5)
        assert caching.has_links(output.encode()) or not links_of(output.encode())


def links_of(output: bytes) -> list[str]:
    return list(links.addresses(output))


def outcome(say: Callable[[bytes], object], document: bytes) -> object:
    try:
        return say(document)
    except ValueError as exc:
        return type(exc).__mro__[-4:]
