"""Very long logs in very large documents are shortened to their end; nothing else is changed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import documents, large_json, long_logs

LINE = 'step 17 of 50: "loss" 0.125 \\ é 🦙\n'


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with less work."""
    monkeypatch.setattr(long_logs, "LARGE", 2000)
    monkeypatch.setattr(long_logs, "KEPT", 500)
    monkeypatch.setattr(large_json, "STEP", 64)


def document(*, is_ascii: bool = True, **fields: Any) -> bytes:
    return json.dumps({"id": "x", "status": "processing", **fields}, ensure_ascii=is_ascii).encode()


@pytest.mark.parametrize("is_ascii", [True, False])
def test_end_of_the_logs_is_kept(is_ascii):
    given = document(is_ascii=is_ascii, input={"logs": "mine", "a": ["{", "}"]}, logs=LINE * 200, output=["a", "b"])
    short = long_logs.shortened(given)
    read, was = json.loads(short), json.loads(given)
    note, _, rest = read["logs"].partition("\n")
    assert note.startswith("[The gateway has removed the first ")
    assert was["logs"].endswith(rest)
    assert LINE in rest
    assert rest.startswith(LINE)
    assert len(short) < 1200
    assert {**read, "logs": ""} == {**was, "logs": ""}


def test_small_documents_and_short_logs_are_the_same_object():
    for body in (document(logs="x" * 1900), document(logs="x" * 400, input={"text": "y" * 4000})):
        assert long_logs.shortened(body) is body


@pytest.mark.parametrize(
    "body",
    [
        document(input={"logs": "x" * 4000}, logs="short"),
        document(input=["logs", "x" * 4000]),
        document(logs=None, error="x" * 4000),
        document(logs=["x" * 4000]),
        b'{"logs":"' + b"x" * 4000,
        b'{"logs":"' + b"x" * 4000 + b"\\",
        b'"' + b"\\" * 4001 + b'"',
        b"x" * 4000,
    ],
)
def test_other_long_texts_are_kept(body):
    """Also what is no JSON: whoever reads it says so."""
    assert long_logs.shortened(body) is body


@given(st.text(min_size=1, max_size=40), st.integers(60, 200), st.booleans(), st.booleans())
def test_what_is_left_is_the_end_whatever_the_logs_say(line, lines, is_ascii, has_input):
    more = {"input": {"logs": ['"', {"logs": line}]}} if has_input else {}
    body = document(is_ascii=is_ascii, **more, logs=line * lines)
    short = long_logs.shortened(body)
    if short is body:
        return
    was, read = json.loads(body), json.loads(short)
    assert was["logs"].endswith(read["logs"].partition("\n")[2])
    assert {**read, "logs": ""} == {**was, "logs": ""}


def test_logs_are_found_behind_any_number_of_strings():
    given = document(output=[{"token": [["x"]]}] * 1000, logs=LINE * 200)
    short = long_logs.shortened(given)
    read, was = json.loads(short), json.loads(given)
    assert was["logs"].endswith(read["logs"].partition("\n")[2])
    assert {**read, "logs": ""} == {**was, "logs": ""}
    assert len(short) < len(given) - 2000


@pytest.mark.parametrize("rest", [b' "x"', b"x"])
def test_value_that_only_begins_with_a_string_is_kept(rest):
    body = b'{"logs":"' + b"x" * 4000 + b'"' + rest + b"}"
    assert long_logs.shortened(body) is body


def test_snapshot_says_that_logs_were_shortened():
    snapshot = documents.read_snapshot(document(logs=LINE * 200))
    assert (snapshot.is_shortened, snapshot.is_repaired) == (True, False)
    assert len(snapshot.document) < 1200
    assert not documents.read_snapshot(document(logs="")).is_shortened
