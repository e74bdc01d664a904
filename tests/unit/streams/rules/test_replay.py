"""Streams replayed from the stored document of a run."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.streams.rules import replay as rules
from gateway.streams.rules.event_log import EventLog, order
from gateway.streams.rules.replay import canceled_done, frame, is_own_end, with_links
from gateway.streams.rules.sse import EventSplitter, is_done, read_event
from tests.support.replays import replay

COMPLETED = "2023-10-31T17:46:11.25Z"
AT = 1698774371


def document(output: Any, status: str = "succeeded", **more: Any) -> bytes:
    body = {"id": "vrsafsk7mnrgj0cf0p2ax766s4", "output": output, "status": status, "completed_at": COMPLETED} | more
    return json.dumps(body).encode()


def reported(document: bytes, **more: Any) -> list[tuple[str, str]]:
    return [(event.name, event.data()) for event in replay(document, 0.0, **more)]


def test_text_is_replayed_chunk_by_chunk():
    """The same bytes as upstream would have sent, empty chunks too, numbered within the second of the end."""
    assert b"".join(event.raw for event in replay(document(["Hello,", " world", "", "\n"]), 0.0)) == (
        b"event: output\nid: 1698774371:0\ndata: Hello,\n\n"
        b"event: output\nid: 1698774371:1\ndata:  world\n\n"
        b"event: output\nid: 1698774371:2\ndata:\n\n"
        b"event: output\nid: 1698774371:3\ndata:\ndata:\n\n"
        b"event: done\nid: 1698774371:4\ndata: {}\n\n"
    )


def test_logs_are_replayed_as_one_event_before_the_output():
    """The ids of the others stay the same: another node may have replayed them without."""
    with_logs = document(["a", "b"], logs="Using seed: 1\nLoading…")
    events = replay(with_logs, 0.0, most_bytes=1_000)
    assert [(event.id, event.name, event.data()) for event in events] == [
        (f"{AT - 1}:1000003", "logs", "Using seed: 1\nLoading…"),
        (f"{AT}:0", "output", "a"),
        (f"{AT}:1", "output", "b"),
        (f"{AT}:2", "done", "{}"),
    ]
    assert replay(with_logs, 0.0) == events[1:]
    ids = [order(event.id) for event in events if event.id]
    assert ids == sorted(ids, key=lambda pair: pair or (0, 0))


@pytest.mark.parametrize("logs", [None, "", 7, ["a"]])
def test_logs_that_are_no_text_are_not_replayed(logs: Any):
    assert reported(document("a", logs=logs), most_bytes=1_000) == [("output", "a"), ("done", "{}")]


@given(st.text(max_size=200), st.integers(0, 600))
def test_logs_are_replayed_where_there_is_room(logs: str, most_bytes: int):
    """A log of a stream keeps the newest events only: logs must not push out the output."""
    given_document = document(["a", "b"], logs=logs)
    whole, rest = replay(given_document, 0.0, most_bytes=10_000), replay(given_document, 0.0)
    size = sum(len(event.raw) for event in whole)
    found = replay(given_document, 0.0, most_bytes=most_bytes)
    assert found in (whole, rest)
    if size > most_bytes:
        assert found == rest
    elif 6 * len(logs.encode()) + 100 < most_bytes - 150:
        assert found == whole


def test_file_stream_is_replayed_link_by_link():
    """One link an event."""
    links = ["https://replicate.delivery/xezq/a/out-0.png", "data:image/png;base64,AAAA"]
    assert reported(document(links)) == [("output", links[0]), ("output", links[1]), ("done", "{}")]


def test_links_to_copies_may_replace_upstreams():
    """An hour after the end upstream's links are dead, and those of the gateway's copies are not."""
    mine = b'["https://gateway.example/outputs/t/out-0.png"]'
    assert reported(document(["https://replicate.delivery/xezq/a/out-0.png"]), output=mine) == [
        ("output", "https://gateway.example/outputs/t/out-0.png"),
        ("done", "{}"),
    ]


@pytest.mark.parametrize(
    ("output", "chunks"),
    [
        ("a text", ["a text"]),
        ("", [""]),
        (None, []),
        ([], []),
        ({"a": 1, "b": [2]}, ['{"a": 1, "b": [2]}']),
        (1.50, ["1.5"]),
        (True, ["true"]),
        ([1, None, {"a": "b"}, "text", ["x", "y"]], ["1", "null", '{"a": "b"}', "text", '["x", "y"]']),
    ],
)
def test_other_outputs_are_replayed_as_json(output: Any, chunks: list[str]):
    """A string is one event; other values are written as JSON; null is no event."""
    assert reported(document(output)) == [*(("output", chunk) for chunk in chunks), ("done", "{}")]


def test_json_stays_as_upstream_wrote_it():
    """Numbers keep their form and text its escapes."""
    body = b'{"status": "succeeded", "output": { "n" : 1.50,\n "t":"\\u003ca\\u003e" }}'
    assert reported(body) == [("output", '{ "n" : 1.50,\n "t":"\\u003ca\\u003e" }'), ("done", "{}")]


def test_document_without_an_output_has_only_an_end():
    """Fields that are not known yet are absent in one of upstream's forms."""
    assert reported(b'{"status":"succeeded"}') == [("done", "{}")]


def test_lone_surrogate_is_replaced():
    """JSON may contain what UTF-8 cannot; the reader gets the replacement character, and everything else as it is."""
    body = rb'{"status":"succeeded","output":["a\ud83d","\ude00b","\ud83d\ude00","\\ud83d","\uD83Dx\n"]}'
    chunks = ["a\ufffd", "\ufffdb", "\U0001f600", "\\ud83d", "\ufffdx\n"]
    assert reported(body) == [*(("output", chunk) for chunk in chunks), ("done", "{}")]
    assert reported(document(None), output=rb'["a\ud83d"]') == [("output", "a\ufffd"), ("done", "{}")]


# Ends


def test_failed_run_sends_its_error_and_then_done():
    """Clients throw at `error` with its `detail`, and close on `done`."""
    assert reported(document(["a"], "failed", error='CUDA "out" of memory é')) == [
        ("output", "a"),
        ("error", '{"detail":"CUDA \\"out\\" of memory é"}'),
        ("done", '{"reason":"error"}'),
    ]


@pytest.mark.parametrize("error", [None, ""])
def test_failed_run_without_a_message_still_sends_an_error(error: str | None):
    """A failure is never shown as an output that is merely short."""
    assert reported(document(None, "failed", error=error)) == [
        ("error", '{"detail":"Prediction failed"}'),
        ("done", '{"reason":"error"}'),
    ]


def test_error_that_is_no_text_is_sent_as_json():
    """Some models raise objects."""
    assert reported(document(None, "failed", error={"code": 1}))[0] == ("error", '{"detail":"{\\"code\\": 1}"}')


@pytest.mark.parametrize("status", ["canceled", "aborted"])
def test_cancelled_run_sends_its_output_and_reason(status: str):
    """Streams have two reasons; a run that was aborted before it began counts as cancelled."""
    assert reported(document(["a"], status)) == [("output", "a"), ("done", '{"reason":"canceled"}')]


def test_cancelled_caller_gets_the_end_at_once():
    """Whatever the shared run goes on to send; and no event of the run has that id."""
    event = canceled_done(1698774371.9)
    assert event.raw == b'event: done\nid: 1698774371:1000000\ndata: {"reason":"canceled"}\n\n'
    assert is_done(event)
    assert canceled_done(1698774371.9) == event


# Ids


def test_equal_runs_give_equal_bytes():
    """A reader that resumes at another process, hours later, goes on where it was."""
    body = document(["a", "b", "c"])
    assert replay(body, 1.0) == replay(body, 2.0)
    log = EventLog(10_000)
    for event in replay(body, 3.0):
        log.append(event)
    assert log.is_closed
    assert log.after(f"{AT}:1") == 2


@pytest.mark.parametrize("completed_at", [None, "", "soon"])
def test_run_without_a_completion_time_is_numbered_by_its_end_here(completed_at: str | None):
    """Runs that the gateway ended itself have none."""
    body = document("a", completed_at=completed_at)
    assert [event.id for event in replay(body, 1700000000.7)] == ["1700000000:0", "1700000000:1"]


def test_broken_stream_is_completed_without_repeating():
    """Ids go on upward."""
    body = document(["a", "b", "c"])
    assert [(event.id, event.data()) for event in replay(body, 0.0, sent=2, last_id="1698774370:1")] == [
        (f"{AT}:0", "c"),
        (f"{AT}:1", "{}"),
    ]
    assert [event.id for event in replay(body, 0.0, sent=2, last_id=f"{AT}:0")] == [f"{AT}:1", f"{AT}:2"]
    assert [event.id for event in replay(body, 0.0, sent=3, last_id=f"{AT + 5}:7")] == [f"{AT + 5}:8"]
    assert [event.id for event in replay(body, 0.0, sent=3, last_id="odd")] == [f"{AT}:0"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"output":1}',
        b'{"status":"dreaming"}',
        b'{"status":"succeeded"',
        b"\xff",
        b'{"status":"succeeded","output":"\xff"}',
        b'{"status":"succeeded","output":' + b"[" * 100_000,
    ],
)
def test_document_that_is_no_prediction_is_refused(body: bytes):
    """The caller of this function knows that there is nothing to replay."""
    with pytest.raises(ValueError, match="not a prediction"):
        replay(body, 0.0)


@pytest.mark.parametrize("status", ["starting", "processing"])
def test_run_in_progress_is_not_replayed(status: str):
    """Its `done` would be wrong."""
    with pytest.raises(ValueError, match=f"not finished: the prediction is {status}"):
        replay(document(["a"], status), 0.0)


# Frames


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("", b"data:\n"),
        (" a ha", b"data:  a ha\n"),
        ("\n", b"data:\ndata:\n"),
        ("a\nb\n", b"data: a\ndata: b\ndata:\n"),
        ("a\r\nb\rc", b"data: a\ndata: b\ndata: c\n"),
        ("\u2028\x85\x0b", b"data: \xe2\x80\xa8\xc2\x85\x0b\n"),
    ],
)
def test_event_is_written_as_upstream_writes_it(data: str, lines: bytes):
    """Event, id, data; a line for each line of the text, and no space after the colon of an empty one."""
    assert frame("output", "1:0", data).raw == b"event: output\nid: 1:0\n" + lines + b"\n"


@pytest.mark.parametrize(("name", "event_id"), [("a\nb", "1:0"), ("a", "1\r:0"), ("a", "1\0")])
def test_names_and_ids_of_several_lines_are_refused(name: str, event_id: str):
    """They cannot add fields to an event."""
    with pytest.raises(ValueError, match="one line"):
        frame(name, event_id, "")


@given(st.text(), st.sampled_from(["output", "logs", "error", "done"]), st.integers(0, 10**6))
def test_framed_text_reads_back(text: str, name: str, number: int):
    """Any text, but for line breaks, of which the format knows one."""
    event = frame(name, f"1:{number}", text)
    assert read_event(event.raw) == event
    assert EventSplitter(10_000).feed(event.raw) == [event]
    assert event.data() == text.replace("\r\n", "\n").replace("\r", "\n")


@given(st.text(st.sampled_from("ab\r\n \u20ac"), max_size=30), st.integers(1, 6))
def test_long_text_is_framed_piece_by_piece(text: str, step: int):
    """As the same text in one call, wherever it is cut."""
    whole = frame("output", "1:0", text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rules, "_STEP", step)
        assert frame("output", "1:0", text) == whole


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each, max_size=4))


@given(JSON, st.sampled_from(["succeeded", "failed", "canceled", "aborted"]))
def test_every_replay_follows_the_clients_contract(output: Any, status: str):
    """An id on each event, in rising order; only the four names; `done` at the end and nowhere else; text unchanged."""
    events = replay(document(output, status), 0.0)
    assert [event.id for event in events] == [f"{AT}:{number}" for number in range(len(events))]
    assert {event.name for event in events} <= {"output", "error", "done"}
    assert [is_done(event) for event in events] == [False] * (len(events) - 1) + [True]
    if isinstance(output, list) and all(isinstance(item, str) for item in output):
        joined = "".join(event.data() for event in events if event.name == "output")
        assert joined == "".join(item.replace("\r\n", "\n").replace("\r", "\n") for item in output)


def test_cleared_data_is_not_an_empty_success():
    """An hour after the end a page opens the stream: it learns that the data is gone."""
    body = b'{"status":"succeeded","output":null,"data_removed":true,"completed_at":"2024-01-01T00:00:00Z"}'
    error, done = replay(body, 0)
    assert (error.name, error.data()) == ("error", '{"detail":"The data of this prediction has been removed."}')
    assert (done.name, done.data()) == ("done", '{"reason":"error"}')
    assert error.id == "1704067200:1000001"
    assert done.id is not None
    assert is_own_end(done.id)
    copies = replay(body, 0, output=b'["https://gateway.example.com/outputs/x"]')
    assert [event.name for event in copies] == ["output", "done"]


def test_cleared_run_still_sends_how_it_ended():
    """An error's message and a cancel are no data."""
    failed = b'{"status":"failed","error":"no GPU","output":null,"data_removed":true}'
    assert [event.data() for event in replay(failed, 0)] == ['{"detail":"no GPU"}', '{"reason":"error"}']
    canceled = b'{"status":"canceled","output":null,"data_removed":true}'
    assert [event.data() for event in replay(canceled, 0)] == ['{"reason":"canceled"}']


def test_error_is_not_repeated():
    """Upstream's stream broke between `error` and `done`."""
    failed = b'{"status":"failed","error":"no GPU"}'
    assert [event.name for event in replay(failed, 0, error_sent=True, last_id="10:3")] == ["done"]


def test_gateways_own_ends_have_their_own_ids():
    """Upstream's are never taken for them."""
    assert is_own_end("10:1000000")
    assert is_own_end("10:1000002")
    for other in ("10:1000001", "10:999999", "10:0", "x", ""):
        assert not is_own_end(other)


def test_copies_replace_known_links_and_nothing_else():
    """Ids and order stay, so that a reader that resumes goes on where it was."""
    reported = [
        frame("output", "1:0", "https://x.example/a.png"),
        frame("logs", "1:1", "https://x.example/a.png"),
        frame("output", "1:2", "see https://x.example/a.png"),
        frame("done", "1:3", "{}"),
    ]
    changed = with_links(reported, {"https://x.example/a.png": "https://g/1"})
    assert changed == [frame("output", "1:0", "https://g/1"), *reported[1:]]
    assert with_links(reported, {}) == reported
