"""The input and output of a prediction as text: whatever Replicate answers, a page can be made of it."""

import msgspec
import pytest

from gateway.dashboard.prediction_view import MOST_TEXT, texts_of
from gateway.operations.prediction_log import PredictionData


def test_values_are_indented_and_texts_plain():
    """With the links in them; nothing for null."""
    links = ["https://a.example/x", {"b": "http://b.example"}, "ftp://c.example", "https://d.example/a b"]
    shown = texts_of(PredictionData(input=msgspec.Raw(b'{"a":1}'), output=links, logs="line\nline"))
    assert shown["input"].text == '{\n  "a": 1\n}'
    assert shown["output"].links == ("https://a.example/x", "http://b.example")
    assert shown["logs"].text == "line\nline"
    assert shown.keys() == {"input", "output", "logs"}
    assert texts_of(None) == {}


@pytest.mark.parametrize(
    "raw",
    [
        rb'"half of an emoji: \ud83d"',
        b'"\xff"',
        b"1e999",
        b"9" * 50,
        b'{"a":NaN}',
        b"[" * 700 + b"]" * 700,
        b"[" * 30_000 + b"]" * 30_000,
    ],
)
def test_what_cannot_be_decoded_is_shown_as_it_is(raw: bytes):
    """Replicate's own bodies are kept as they are, and a model decides what is in its output."""
    shown = texts_of(PredictionData(output=msgspec.Raw(raw)))["output"]
    assert shown.text == raw.decode(errors="replace")[:MOST_TEXT]
    assert shown.is_cut == (len(raw) > MOST_TEXT)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (["Once", " upon", " a time."], "Once upon a time."),
        (["https://a.example/x", "and text"], '[\n  "https://a.example/x",\n  "and text"\n]'),
        (["data:text/plain,x"], '[\n  "data:text/plain,x"\n]'),
        (["a", 1], '[\n  "a",\n  1\n]'),
        ([], "[]"),
    ],
)
def test_text_of_a_language_model_is_joined(output: list[object], expected: str):
    """Not a list of files, and not the list of texts of an input."""
    assert texts_of(PredictionData(output=output))["output"].text == expected
    assert "[" in texts_of(PredictionData(input=msgspec.Raw(msgspec.json.encode(output))))["input"].text
