"""Streams on the second origin: encoding, late readers, resuming, and ends."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator import sse
from gateway.simulator.streams import EventLog
from tests.support.event_streams import parse_events
from tests.support.polling import until
from tests.support.simulator_models import hold_runs


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        ("Hello,", b"event: output\nid: 5:0\ndata: Hello,\n\n"),
        ("", b"event: output\nid: 5:0\ndata:\n\n"),
        (" a ha", b"event: output\nid: 5:0\ndata:  a ha\n\n"),
        ("\n", b"event: output\nid: 5:0\ndata:\ndata:\n\n"),
        (":\n\nF", b"event: output\nid: 5:0\ndata: :\ndata:\ndata: F\n\n"),
    ],
)
def test_event_is_encoded_as_recorded(data, wire):
    """Event, id, data, in this order; spaces are kept, line breaks make several lines."""
    assert sse.encode_event("output", "5:0", data) == wire


def test_event_ids_restart_every_second():
    """As recorded; if the time steps back, ids stay unique."""
    ids = sse.EventIds()
    assert [ids.next(now) for now in (7.1, 7.9, 8.0, 8.5, 6.0, 9.0)] == ["7:0", "7:1", "8:0", "8:1", "8:2", "9:0"]


@given(
    st.lists(
        st.text(
            alphabet=st.characters(
                exclude_characters="\r\x00\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e", exclude_categories=["Cs"]
            )
        ),
        max_size=20,
    )
)
def test_events_round_trip(chunks):
    """Any text, split anywhere; a compressed log reads like an open one."""
    log = EventLog(1 << 20)
    for chunk in chunks:
        log.add("output", chunk, 5.0)
    before = b"".join(log.read(0)[0])
    log.add("done", "{}", 6.0)
    events = parse_events(b"".join(log.read(0)[0]))
    assert [data for event, _, data in events if event == "output"] == chunks
    assert b"".join(log.read(0)[0]).startswith(before)
    for place, (_, event_id, _) in enumerate(events):
        assert log.place_after(event_id) == place + 1


async def test_stream_has_the_whole_output_and_done(api):
    """The data joined is the output joined; every event has an id; the comment comes first."""
    created = (await api.create("acme/storyteller", {"prompt": "a llama", "seed": 3})).body
    raw = await api.stream(created["urls"]["stream"])
    assert raw.startswith(b": hi\n\n")
    assert raw.endswith(b"data: {}\n\n:408: 408 Request Timeout\n\n")
    events = parse_events(raw)
    done = await api.finish(created["id"])
    assert "".join(data for event, _, data in events if event == "output") == "".join(done["output"])
    assert "".join(data for event, _, data in events if event == "logs") == done["logs"]
    assert all(event_id for _, event_id, _ in events)
    assert events[-1][0] == "done"


async def test_events_are_sent_while_the_model_runs(start):
    """The first token arrives long before the last."""
    api = await start(stream_idle_seconds=600)
    hold_runs(api.simulator, "acme/storyteller", after=1)
    created = (await api.create("acme/storyteller", {"prompt": "x", "max_tokens": 100})).body
    async with api.session.get(created["urls"]["stream"]) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        text = b""
        while b"event: output" not in text:
            text += await response.content.readany()
    assert api.simulator.predictions[0].status == "processing"


async def test_late_reader_gets_all_events_and_a_resuming_one_the_rest(api):
    """After the event in Last-Event-ID."""
    created = (await api.create("acme/storyteller", {"prompt": "x", "max_tokens": 9}, wait=True)).body
    await api.finish(created["id"])
    whole = await api.stream(created["urls"]["stream"])
    events = parse_events(whole)
    rest = parse_events(await api.stream(created["urls"]["stream"], {"Last-Event-ID": events[4][1]}))
    assert rest == events[5:]
    assert parse_events(await api.stream(created["urls"]["stream"], {"Last-Event-ID": "1:1"})) == events


async def test_failure_is_an_error_event_and_then_done(api):
    """The data of the error is JSON with the detail."""
    created = (await api.create("acme/fail", {})).body
    events = parse_events(await api.stream(created["urls"]["stream"]))
    assert [(event, data) for event, _, data in events[-2:]] == [
        ("error", '{"detail":"division by zero"}'),
        ("done", '{"reason":"error"}'),
    ]


async def test_cancel_ends_the_stream_with_its_reason(start):
    """A reader sees that it was canceled."""
    api = await start(stream_idle_seconds=600)
    hold_runs(api.simulator, "acme/storyteller")
    created = (await api.create("acme/storyteller", {"prompt": "x"})).body
    async with api.session.get(created["urls"]["stream"]) as response:
        await api.post(f"/predictions/{created['id']}/cancel")
        text = b""
        while b"event: done" not in text or not text.endswith(b"\n\n"):
            text += await response.content.readany()
    assert parse_events(text)[-1][2] == '{"reason":"canceled"}'


async def test_idle_stream_times_out(start):
    """With a comment."""
    api = await start(speed=1, stream_idle_seconds=0.1)
    created = (await api.create("acme/storyteller", {"prompt": "x", "token_delay": 30})).body
    assert await api.stream(created["urls"]["stream"]) in {
        b": hi\n\n:408: 408 Request Timeout\n\n",
        b": hi\n\n" + b":408: 408 Request Timeout\n\n",
    }


async def test_file_stream_has_its_own_url_format(api):
    """Its path starts with /v1/files/, and its events are working links."""
    created = (await api.create("acme/frames", {"count": 2, "size": 16})).body
    path = created["urls"]["stream"].removeprefix(api.simulator.delivery_url)
    assert path.startswith("/v1/files/")
    assert len(path.removeprefix("/v1/files/")) == 4 + 1 + 52
    events = parse_events(await api.stream(created["urls"]["stream"]))
    links = [data for event, _, data in events if event == "output"]
    assert len(links) == 2
    for link in links:
        assert (await api.session.get(link)).status == 200


async def test_streams_need_no_token_and_log_a_sent_one(api):
    """The log shows whether a credential reached the second origin."""
    created = (await api.create("acme/storyteller", {"prompt": "x", "max_tokens": 1}, wait=True)).body
    await api.stream(created["urls"]["stream"])
    assert api.simulator.requests.authorized("delivery") == 0
    await api.stream(created["urls"]["stream"], {"Authorization": "Bearer r8_leak"})
    assert api.simulator.requests.authorized("delivery") == 1
    assert api.simulator.requests.count("streams.get") == 2
    assert (await api.get(f"{api.simulator.delivery_url}/v1/streams/short")).status == 404


async def test_closing_does_not_wait_for_open_streams(start):
    """A simulator with readers and a waiting create closes at once."""
    api = await start(speed=1, stream_idle_seconds=600)
    created = (await api.create("acme/storyteller", {"prompt": "x", "token_delay": 30})).body
    tasks = [asyncio.create_task(api.stream(created["urls"]["stream"])) for _ in range(5)]
    tasks.append(asyncio.create_task(api.create("acme/slow", {"duration": 1000}, wait=True)))
    await until(lambda: len(api.simulator.requests) == 7)
    await api.simulator.close()
    await asyncio.gather(*tasks, return_exceptions=True)
