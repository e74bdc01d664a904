"""Bodies of predictions, as upstream wrote them and as callers see them."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import documents, rendering, surrogates, times
from gateway.domain.records import Kind, Prediction, PredictionView, Run, RunState, Source, Status
from tests.support.json_strategies import SPELLED

UPSTREAM_ID = "vrsafsk7mnrgj0cf0p2ax766s4"
OTHER_ID = "kr2d2jhqbsrj60cjb2vtmekgh4"
BASE = "https://gw.example/v1"
TICKET = "streams/" + "a" * 52
AT = 1713784514.469

EDGE = (
    rb'{"id":"vrsafsk7mnrgj0cf0p2ax766s4","model":"stability-ai/sdxl","version":"39ed","input":{"height":512,'
    rb'"prompt":"a \u003cb\u003e \u0026 \ud83d\ude00 https://api.replicate.com/v1/predictions/vrsafsk7mnrgj0cf0p2ax766s4",'
    rb'"seed":1180591620717411303424,"x":0.1000000000000000055},"logs":"Using seed\n 100%|\u2588|","output":["a\/b",'
    rb'3e-06,null],"error":null,"status":"processing","created_at":"2024-04-22T11:15:14.469Z",'
    rb'"started_at":"2024-04-22T11:15:15.04Z","metrics":{"predict_time":3e-06},"urls":{"cancel":'
    rb'"https://api.replicate.com/v1/predictions/vrsafsk7mnrgj0cf0p2ax766s4/cancel","get":'
    rb'"https://api.replicate.com/v1/predictions/vrsafsk7mnrgj0cf0p2ax766s4","stream":'
    rb'"https://stream.replicate.com/v1/files/abcd-xyz","web":"https://replicate.com/p/vrsafsk7mnrgj0cf0p2ax766s4"},'
    rb'"new_field":{"a":[1.0]}}'
    b"\n"
)
DATABASE = (
    rb'{"completed_at": "2024-04-22T11:15:14.604578Z", "created_at": "2024-04-22T11:15:14.469000Z", "error": null,'
    rb' "id": "vrsafsk7mnrgj0cf0p2ax766s4", "input": {"prompt": "\u00e9 \ud83d"}, "logs": null, "metrics": '
    rb'{"predict_time": 3e-06, "total_time": 0.135578}, "output": null, "started_at": "2024-04-22T11:15:14.604575Z",'
    rb' "status": "canceled", "urls": {"get": "https://api.replicate.com/v1/predictions/vrsafsk7mnrgj0cf0p2ax766s4", '
    rb'"cancel": "https://api.replicate.com/v1/predictions/vrsafsk7mnrgj0cf0p2ax766s4/cancel", "stream": null}, '
    rb'"model": "stability-ai/sdxl", "version": "39ed", "webhook_completed": null}'
)
SHOWN = {"id", "urls", "webhook", "webhook_events_filter", "deadline"}


def view(document: bytes = EDGE, *, status: Status = Status.PROCESSING, **fields: object) -> PredictionView:
    run = Run(
        id="run_1", kind=Kind.PREDICTION, team="red", key_id="k", target="a/b", path="/predictions", request=b"{}",
        intended_at=AT, document=document, status=status, state=RunState.LIVE, upstream_id=UPSTREAM_ID,
    )  # fmt: skip
    given: dict[str, Any] = {"id": OTHER_ID, "run_id": "run_1", "kind": Kind.PREDICTION, "team": "red", "key_id": "k"}
    given = {"source": Source.MISS} | given | {"created_at": AT, "ticket": "", "ticket_expires_at": AT + 1}
    return PredictionView(Prediction(**(given | fields)), run)


def show(seen: PredictionView, **options: bool) -> bytes:
    return rendering.render(seen, BASE, TICKET, family="predictions", **options)


def top(body: bytes) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in surrogates.split(body).items()}


def with_output(value: bytes) -> bytes:
    return b'{"id":"%s","input":%s,"output":%s,"logs":%s,"status":"processing","urls":{"get":"x"},"other":%s}' % (
        UPSTREAM_ID.encode(), value, value, value, value
    )  # fmt: skip


@pytest.mark.parametrize("document", [EDGE, DATABASE])
def test_only_the_callers_own_fields_are_changed(document):
    """Input, output, logs and unknown fields are the bytes that upstream wrote, in its order."""
    before, after = top(document), top(show(view(document)))
    assert list(after) == list(before)
    for name in before.keys() - SHOWN:
        assert after[name] == before[name], name


@given(SPELLED)
def test_values_keep_their_bytes(spelled):
    """Numbers keep their digits, texts their escapes, at any depth."""
    value = spelled.encode()
    for status in (Status.PROCESSING, Status.SUCCEEDED):
        shown = top(show(view(with_output(value), status=status)))
        assert [shown[name] for name in ("input", "output", "logs", "other")] == [value] * 4


@given(SPELLED)
def test_parsed_status_update_keeps_the_bytes(spelled):
    """What is stored is what upstream sent."""
    document = with_output(spelled.encode())
    assert documents.read_snapshot(b" \n" + document + b"\n").document == document


@pytest.mark.parametrize("document", [EDGE, DATABASE])
def test_links_lead_to_the_gateway_and_none_is_null(document):
    """The Python client refuses a null link; the JavaScript client follows what it is given."""
    urls = json.loads(show(view(document)))["urls"]
    own = f"{BASE}/predictions/{OTHER_ID}"
    assert urls["get"] == own
    assert urls["cancel"] == f"{own}/cancel"
    assert urls.get("stream", f"{BASE}/{TICKET}") == f"{BASE}/{TICKET}"
    assert None not in urls.values()
    assert ("stream" in urls) == (document is EDGE)


@given(
    st.dictionaries(
        st.sampled_from(["get", "cancel", "stream", "web", "next"]), st.none() | st.text(max_size=5), max_size=5
    ) | st.none()
)  # fmt: skip
def test_absent_links_are_left_out(urls):
    """Links that upstream does not give are not invented."""
    document = json.dumps({"id": UPSTREAM_ID, "status": "starting", "urls": urls}).encode()
    shown = json.loads(show(view(document)))["urls"]
    assert shown.keys() == {name for name, url in (urls or {}).items() if url is not None}
    assert None not in shown.values()
    foreign = json.loads(rendering.render_foreign(document, BASE, "predictions"))["urls"]
    assert foreign.keys() == shown.keys() - {"stream"}
    assert None not in foreign.values()


def test_document_without_links_gets_none():
    """Nothing is added that upstream did not give."""
    document = b'{"id":"x","status":"starting"}'
    assert "urls" not in json.loads(show(view(document)))
    assert rendering.render_foreign(document, BASE, "predictions") == document


def test_joined_prediction_never_shows_the_runs_id():
    """A caller that shares a run does not learn the id of another's prediction."""
    body = json.loads(show(view()))
    del body["input"]
    assert body["id"] == OTHER_ID
    assert UPSTREAM_ID not in json.dumps(body)


def test_web_link_is_shown_to_the_first_caller_only():
    """`urls.web` shows the run on Replicate's site: to the caller that created it, and to none that joined."""
    web = f"https://replicate.com/p/{UPSTREAM_ID}"
    assert json.loads(show(view(id=UPSTREAM_ID)))["urls"]["web"] == web
    assert "web" not in json.loads(show(view()))["urls"]


def test_caller_sees_its_own_webhook_and_deadline():
    """Upstream's, if any, is the gateway's own."""
    theirs = b'{"id":"x","status":"starting","webhook":"https://gw/secret","webhook_events_filter":["start"]}'
    assert json.loads(show(view(theirs))).keys() == {"id", "status"}
    mine = view(theirs, webhook="https://me.example/", webhook_events_filter=("completed",), deadline_at=AT + 60)
    body = json.loads(show(mine))
    assert body["webhook"] == "https://me.example/"
    assert body["webhook_events_filter"] == ["completed"]
    assert body["deadline"] == times.render(AT + 60)


def test_expired_wait_looks_like_a_start():
    """Clients take any status but `starting` for the result."""
    body = json.loads(show(view(), as_starting=True))
    assert (body["status"], body["output"]) == ("starting", None)
    assert not body.keys() & {"started_at", "completed_at", "metrics"}
    assert body["logs"]
    assert "output" not in json.loads(show(view(b'{"id":"x","status":"processing"}'), as_starting=True))


def test_end_can_be_shown_as_a_start():
    """A client that must not find output in the response to its create finds none, though the run has ended."""
    ended = EDGE.replace(b'"processing"', b'"succeeded"')
    assert json.loads(show(view(ended, status=Status.SUCCEEDED)))["status"] == "succeeded"
    shown = json.loads(show(view(ended, status=Status.SUCCEEDED), as_starting=True))
    assert (shown["status"], shown.get("output"), "completed_at" in shown) == ("starting", None, False)


@pytest.mark.parametrize("as_starting", [False, True])
@pytest.mark.parametrize("status", [Status.STARTING, Status.PROCESSING, Status.SUCCEEDED])
def test_cancelled_prediction_has_ended_whatever_its_run_does(status, as_starting):
    """A cancel counts at once: canceled, without output, completed now."""
    seen = view(EDGE.replace(b'"processing"', f'"{status}"'.encode()), status=status, canceled_at=AT + 3)
    body = json.loads(show(seen, as_starting=as_starting))
    assert (body["status"], body["output"], body["completed_at"]) == ("canceled", None, times.render(AT + 3))
    assert documents.shown_status(seen) is Status.CANCELED
    assert documents.shown_status(view(status=status)) is status


def test_trainings_have_their_own_links():
    """A training's GET links to /trainings (docs/replicate-api.md, Routes)."""
    body = json.loads(rendering.render(view(), BASE, TICKET, family="trainings"))
    assert body["urls"]["get"] == f"{BASE}/trainings/{OTHER_ID}"
    assert documents.family_of(Kind.TRAINING) == "trainings"
    assert documents.family_of(Kind.PREDICTION) == "predictions"


def test_status_update_is_parsed():
    """The end of a run, when it was, and where its stream is."""
    news = documents.read_snapshot(EDGE)
    assert (news.upstream_id, news.status, news.model, news.version) == (
        UPSTREAM_ID, Status.PROCESSING, "stability-ai/sdxl", "39ed",
    )  # fmt: skip
    assert news.stream_url == "https://stream.replicate.com/v1/files/abcd-xyz"
    assert (news.created_at, news.completed_at) == (pytest.approx(AT), None)
    ended = documents.read_snapshot(DATABASE)
    assert ended.status is Status.CANCELED
    assert ended.stream_url is None
    assert ended.completed_at == pytest.approx(1713784514.604578)


def test_invalid_time_is_ignored():
    """A time that cannot be read does not delay a result."""
    news = documents.read_snapshot(b'{"id":"x","status":"succeeded","created_at":"soon","completed_at":""}')
    assert (news.created_at, news.completed_at) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"<html>", b'{"id":"x"}', b'{"status":"starting"}', b'{"id":5,"status":"starting"}',
        b'{"id":"x","status":"done"}', b'{"id":"x","status":null}', b'{"id":"x","status":"starting","urls":[]}',
        b'{"id":"x","status":"starting","urls":{"get":1}}', b'{"id":"\xff","status":"starting"}',
        b'{"id":"x","status":"starting","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id":"x","status":"starting"', b'{"id":"x","status":"starting","o":"\\ud83d}', b'{"detail":"Not found."}',
    ],
)  # fmt: skip
def test_invalid_document_is_no_status_update(body):
    """An odd upstream response ends nothing."""
    with pytest.raises(ValueError, match="not a prediction"):
        documents.read_snapshot(body)


@pytest.mark.parametrize("size", [0, 300_000, 3_000_000])
def test_text_that_is_not_utf_8_is_repaired_and_followed(size):
    """A model that prints raw bytes is followed to its end; the bytes do not reach callers, whose JSON would break."""
    more = "é".encode() * (size // 2)
    body = b'{"id":"x","status":"processing","logs":"a\xffb\xe2\x82%b"}\n' % more
    news = documents.read_snapshot(body)
    assert news.is_repaired
    assert json.loads(news.document)["logs"] == "a\ufffdb\ufffd" + more.decode()
    whole = documents.read_snapshot(news.document)
    assert (whole.document, whole.is_repaired) == (news.document, False)


def test_very_many_half_surrogates_are_replaced_and_a_few_are_kept():
    """A few are kept byte for byte; hundreds of thousands would keep the gateway from its work at each look."""
    few, many = (
        b'{"id":"x","status":"processing","logs":"%b%b"}' % (b"\\ud83d" * n, b"x" * 300_000) for n in (9, 50_000)
    )
    assert documents.read_snapshot(few).document == few
    news = documents.read_snapshot(many)
    assert news.is_repaired
    assert json.loads(news.document)["logs"] == "\ufffd" * 50_000 + "x" * 300_000


def test_a_part_of_a_large_document_is_read_once():
    """Fields that are far too long are left out, and the document is not parsed again for each part."""
    body = b'{"id":"x","urls":{%b},"status":"succeeded","logs":"%b"}' % (
        b'"a":"' + b"x" * 70_000 + b'"',
        b"y" * 300_000,
    )
    assert json.loads(documents.part(body, "id", "status", "urls", "error")) == {"id": "x", "status": "succeeded"}
    assert surrogates.split(body)["logs"] is surrogates.split(body)["logs"]
    small = b'{"id":"x"}'
    assert documents.part(small, "status") is small


@given(st.binary(max_size=100))
def test_any_bytes_are_a_status_update_or_none(body):
    """Nothing that upstream sends breaks the tracker."""
    with pytest.raises(ValueError, match="not a prediction"):
        documents.read_snapshot(body)


@given(SPELLED, st.sampled_from([status.value for status in Status]))
def test_every_recorded_document_can_be_shown(spelled, status):
    """It can be read by its caller, cleared by the janitor, and failed by the tracker."""
    body = b'{"id":"x","status":"%s","urls":null,"output":%s}' % (status.encode(), spelled.encode())
    news = documents.read_snapshot(body)
    for document in (
        show(view(news.document, status=news.status)),
        show(view(news.document, status=news.status), as_starting=True),
        show(view(news.document, status=news.status, canceled_at=AT)),
        documents.without_data(news.document),
        documents.failed(news.document, "Gone."),
        rendering.render_foreign(news.document, BASE, "trainings"),
    ):
        json.loads(document)


def test_foreign_prediction_is_shown_without_a_stream():
    """The operator's key is not sent to a stream that needs none."""
    body = json.loads(rendering.render_foreign(EDGE, BASE, "predictions"))
    own = f"{BASE}/predictions/{UPSTREAM_ID}"
    assert body["urls"] == {
        "cancel": f"{own}/cancel", "get": own, "web": f"https://replicate.com/p/{UPSTREAM_ID}"
    }  # fmt: skip
    before, after = top(EDGE), top(rendering.render_foreign(EDGE, BASE, "predictions"))
    assert {name for name in before if before[name] != after[name]} == {"urls"}


@pytest.mark.parametrize("body", [b"[]", b'{"status":"x"}', b'{"id":1}', b'{"id":"x","urls":{"get":{}}}'])
def test_foreign_body_that_is_no_prediction_is_refused(body):
    """The HTTP layer turns these into 502."""
    with pytest.raises((msgspec.MsgspecError, KeyError)):
        rendering.render_foreign(body, BASE, "predictions")


@pytest.mark.parametrize("document", [EDGE, DATABASE])
def test_cleared_data_looks_like_upstreams(document):
    """An hour after the end, input, output and logs are gone; the rest stays."""
    before, after = top(document), top(documents.without_data(document))
    assert (after["input"], after["output"], after["logs"]) == (b"{}", b"null", b'""')
    assert after["data_removed"] == b"true"
    for name in before.keys() - {"input", "output", "logs"}:
        assert after[name] == before[name]
    assert documents.without_data(documents.without_data(document)) == documents.without_data(document)


def test_lost_run_is_shown_as_failed():
    """The caller learns why, with what was known before."""
    body = json.loads(documents.failed(EDGE, 'It "went".'))
    assert (body["status"], body["error"]) == ("failed", 'It "went".')
    assert body["input"] == json.loads(EDGE)["input"]


@given(st.lists(SPELLED, max_size=4), st.none() | st.text(max_size=9), st.none() | st.text(max_size=9))
def test_page_contains_its_results_unchanged(results, next_url, previous_url):
    """A list of predictions is the predictions, in order, and two links."""
    body = b"".join(documents.page([result.encode() for result in results], next_url, previous_url))
    fields = top(body)
    assert list(fields) == ["previous", "next", "results"]
    assert fields["results"] == b"[" + b",".join(result.encode() for result in results) + b"]"
    assert (json.loads(fields["next"]), json.loads(fields["previous"])) == (next_url, previous_url)


def test_text_is_written_as_one_string_or_null():
    """Quotes are escaped."""
    assert bytes(documents.text('a"b')) == b'"a\\"b"'
    assert bytes(documents.text(None)) == b"null"


def test_poll_of_a_large_output_does_not_parse_it():
    """Ten megabytes of output are not parsed for each of a thousand polls."""
    document = with_output(b'"' + rb"\"" * 2_500_000 + b'"')
    assert len(show(view(document))) > len(document)
    assert re.match(rb'\{"id":"kr2d', show(view(document)))
