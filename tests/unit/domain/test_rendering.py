"""What is written from a split document is what a plain renderer writes, byte for byte."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain import documents, rendering, surrogates
from gateway.domain.records import Kind, Prediction, PredictionView, Run, Source, Status
from gateway.models.rules import secrets
from tests.support import plain_rendering
from tests.support.cassettes import CASSETTES, interactions
from tests.support.json_strategies import SPACE, SPELLED

UPSTREAM_ID = "vrsafsk7mnrgj0cf0p2ax766s4"
OTHER_ID = "kr2d2jhqbsrj60cjb2vtmekgh4"
FILE = "https://replicate.delivery/xezq/a/out-0.webp"
BASE = 'https://gw.example/"é'
TICKET = "streams/" + "a" * 52
AT = 1713784514.469

TIMES = st.sampled_from(
    ["null", '""', '"soon"', "5", '"2024-04-22T11:15:14.469Z"', '"2024-04-22T11:15:15.04Z"', '"1999-01-01"']
)
LINK = st.sampled_from(["null", f'"https://replicate.com/p/{UPSTREAM_ID}"', '"https://x.example/\\u00e9"', f'"{FILE}"'])
URLS = st.sampled_from(["null", "{}"]) | st.dictionaries(
    st.sampled_from(["get", "cancel", "stream", "web", r"n\u0065xt"]), LINK
).map(lambda urls: "{" + ",".join(f'"{name}": {url}' for name, url in urls.items()) + "}")
OUTPUT = SPELLED | st.sampled_from([f'"{FILE}"', f'["{FILE}", 1e400, "\\ud83d"]', f'{{"a":"{FILE}","a":"{FILE}"}}'])
NAMED = {
    "urls": URLS,
    "created_at": TIMES,
    "started_at": TIMES,
    "completed_at": TIMES,
    "output": OUTPUT,
    "status": st.just('"processing"'),
    "webhook": st.just('"https://gw/secret"'),
    "webhook_events_filter": st.just('["start"]'),
    "deadline": TIMES,
    "id": st.just('"other"'),
}
OTHERS = ["input", "logs", "metrics", "error", "version", "new_field", r"l\u006fgs", "", "é"]
FIELD = st.sampled_from([*NAMED, *OTHERS]).flatmap(
    lambda name: st.tuples(st.just(name), NAMED.get(name, SPELLED))
)  # fmt: skip


@st.composite
def written(draw: Any) -> bytes:
    """Draw a document in any order and spelling, with repeated names."""
    fields, space = [*draw(st.lists(FIELD, max_size=12)), ("id", f'"{UPSTREAM_ID}"')], draw(SPACE)
    text = f",{space}".join(f'"{name}"{space}:{space}{value}' for name, value in draw(st.permutations(fields)))
    return f"{{{space}{text}{space}}}".encode()


PREDICTIONS = st.builds(
    Prediction,
    id=st.sampled_from([UPSTREAM_ID, OTHER_ID, 'o"d\u00e9']),
    run_id=st.just("run_1"),
    kind=st.just(Kind.PREDICTION),
    team=st.just("red"),
    key_id=st.just("k"),
    source=st.sampled_from(Source),
    created_at=st.sampled_from([AT, AT + 1, AT - 1e9]),
    ticket=st.just(""),
    ticket_expires_at=st.just(AT),
    webhook=st.none() | st.just("https://me.example/é"),
    webhook_events_filter=st.none() | st.just(("completed", "start")),
    deadline_at=st.none() | st.just(AT + 60),
    canceled_at=st.none() | st.just(AT + 3),
    final_status=st.sampled_from([Status.CANCELED, Status.ABORTED]),
)
OPTIONS = st.fixed_dictionaries(
    {
        "family": st.sampled_from(["predictions", "trainings"]),
        "as_starting": st.booleans(),
        "links": st.none() | st.just({FILE: "https://gw.example/outputs/é"}),
    }
)


def run_of(document: bytes) -> Run:
    return Run(
        id="run_1", kind=Kind.PREDICTION, team="red", key_id="k", target="a/b", path="/predictions", request=b"",
        intended_at=AT, document=document, upstream_id=UPSTREAM_ID,
    )  # fmt: skip


def outcome(act: Any, *arguments: Any, **options: Any) -> object:
    try:
        return act(*arguments, **options)
    except msgspec.MsgspecError as exc:
        return type(exc)


def expect_equal(document: bytes, predictions: list[Prediction], options: dict[str, Any]) -> None:
    """Show several predictions from one split document, and each of them plainly."""
    read = outcome(rendering.split, document)
    for prediction in predictions:
        view = PredictionView(prediction, run_of(document))
        plain = outcome(plain_rendering.render, view, BASE, TICKET, **options)
        assert outcome(rendering.render, view, BASE, TICKET, **options) == plain
        if isinstance(read, rendering.SplitDocument):
            assert outcome(rendering.render, view, BASE, TICKET, document=read, **options) == plain


@given(written(), st.lists(PREDICTIONS, min_size=1, max_size=3), OPTIONS)
def test_split_document_is_written_as_a_plain_renderer_writes_it(document, predictions, options):
    """Whatever the order, the spelling and the repetitions of its fields, and whoever was shown it before."""
    expect_equal(document, predictions, options)


@given(written(), PREDICTIONS, OPTIONS)
def test_document_without_its_secrets_and_data_is_written_alike(document, prediction, options):
    """Values of inputs that were struck, and the data of outputs that expired, are gone from both."""
    struck = secrets.strike_document(document, ("secret", "https://api.replicate.com"))
    expect_equal(struck, [prediction], options)
    if surrogates.split(document):
        expect_equal(documents.without_data(struck), [prediction], options)


@given(PREDICTIONS, OPTIONS)
def test_large_document_is_written_alike(prediction, options):
    """It is not put together from joined pieces."""
    document = b'{"id":"x","logs":"%b","output":["%b"],"urls":{"get":"x"},"z":1,"y":2}' % (
        b"x" * 300_000,
        FILE.encode(),
    )
    assert len(rendering.split(document).fields) == 6
    expect_equal(document, [prediction], options)


def recorded() -> list[bytes]:
    """Return every prediction and training in the recordings."""
    found: list[bytes] = []
    for path in CASSETTES:
        for each in interactions(path):
            try:
                body = json.loads(each["answer"])
            except ValueError:
                continue
            if isinstance(body, dict) and {"id", "status", "urls"} <= body.keys():
                found.append(each["answer"])
            if isinstance(body, dict) and isinstance(body.get("results"), list):
                found += [json.dumps(item).encode() for item in body["results"] if isinstance(item, dict)]
    return found


@pytest.mark.skipif(not CASSETTES, reason="the recordings are not here")
@given(predictions=st.lists(PREDICTIONS, min_size=1, max_size=2), options=OPTIONS)
def test_every_recorded_document_is_written_alike(predictions, options):
    """What Replicate has really sent."""
    bodies = RECORDED
    assert len(bodies) > 5
    for body in bodies:
        expect_equal(body, predictions, options)


RECORDED = recorded()


def test_joined_fields_are_few():
    """What no prediction changes is copied in one piece between two fields that one may change."""
    document = b'{"id":"x","model":"a/b","version":"v","input":{},"logs":"","output":1,"error":null,"source":"api"}'
    read = rendering.split(document)
    assert list(read.fields) == ["id", "model", "output", "error"]
    assert bytes(read.fields["model"]) == b'"a/b","version":"v","input":{},"logs":""'
    assert read.times == {}


def test_times_of_a_split_document_are_read_once():
    """Every prediction that shares the run compares with them."""
    read = rendering.split(b'{"id":"x","started_at":"2024-04-22T11:15:14.469Z","completed_at":null}')
    assert read.times == {"started_at": pytest.approx(AT), "completed_at": None}
    assert read.times is read.times
    view = PredictionView(
        replace(PREDICTION, source=Source.HIT, created_at=AT + 60), replace(run_of(b""), document=read.document)
    )
    shown = json.loads(rendering.render(view, BASE, TICKET, family="predictions", document=read))
    assert shown["started_at"] == shown["created_at"] == "2024-04-22T11:16:14.469Z"
    assert shown["completed_at"] is None


PREDICTION = Prediction(
    id=OTHER_ID, run_id="run_1", kind=Kind.PREDICTION, team="red", key_id="k", source=Source.MISS, created_at=AT,
    ticket="", ticket_expires_at=AT,
)  # fmt: skip
