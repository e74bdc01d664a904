"""Which strings of an output are files, when copies stand in for them, and how their links look."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain.records import Copy, Kind, Prediction, PredictionView, Run, RunState, Source, Status
from gateway.outputs.rules import outputs
from gateway.outputs.rules.outputs import Files, OutputFile, Persist
from gateway.sharing.rules.caching import LINKS_LIVE_SECONDS

END = 1_764_000_000.0
A, B = "https://replicate.delivery/a/out-0.png", "https://replicate.delivery/b/out-1.png"
SECRET = b"secret"
ORIGIN = "https://gateway.example.com"
DAY = 86_400.0


def is_output(url: str) -> bool:
    return url.startswith("https://replicate.delivery/") and " " not in url


def found(output: Any) -> list[str]:
    return [file.url for file in outputs.files_of(json.dumps(output).encode(), is_output).found]


def copy(place: int = 0, url: str = A, **fields: Any) -> Copy:
    given = {"content_type": "image/png", "sha256": "a" * 64, "size": 3, "stored_at": END + 5}
    return Copy(place=place, url=url, **given | fields)


def run(**fields: Any) -> Run:
    given = {"state": RunState.ENDED, "status": Status.SUCCEEDED, "intended_at": END - 9, "ended_at": END}
    given |= {"kind": Kind.PREDICTION, "team": "red", "key_id": "k", "target": "t", "path": "/p", "request": b""}
    return Run(id="run1", **given | fields)


def view(source: Source = Source.MISS, **fields: Any) -> PredictionView:
    given = {"kind": Kind.PREDICTION, "team": "red", "key_id": "k", "created_at": END - 9}
    return PredictionView(
        Prediction(id="p" * 26, run_id="run1", source=source, ticket="", ticket_expires_at=0, **given), run(**fields)
    )


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        (A, [A]),
        ([A, B], [A, B]),
        ([B, A, B], [B, A]),
        ({"video": B, "frames": [{"x": A}]}, [B, A]),
        ({A: 1}, []),
        ([f"see {A}", f"{A} ", 1, None, True, ""], []),
        ("https://elsewhere.example/a.png", []),
        (None, []),
        (["é\ud83d", A], [A]),
    ],
)
def test_files_are_whole_strings_each_once_in_order(output: Any, urls: list[str]):
    """A key, or a text that merely contains a link, is no file."""
    assert found(output) == urls


def test_escaped_link_is_the_same_link():
    assert outputs.files_of(rb'["https:\/\/replicate.delivery\/a\/out-0.png"]', is_output) == Files(
        (OutputFile(0, A),), True
    )


def test_number_of_files_is_limited():
    urls = [f"https://replicate.delivery/{number}" for number in range(outputs.MAX_FILES + 1)]
    files = outputs.files_of(json.dumps(urls).encode(), is_output)
    assert (len(files.found), files.is_whole) == (outputs.MAX_FILES, False)
    assert outputs.files_of(json.dumps(urls[1:]).encode(), is_output).is_whole


@pytest.mark.parametrize(
    ("fields", "shared", "everything"),
    [
        ({}, False, True),
        ({"fingerprint": "F"}, True, True),
        ({"provisional": "P"}, True, True),
        ({"fingerprint": "F", "status": Status.FAILED}, False, True),
        ({"fingerprint": "F", "kind": Kind.TRAINING}, False, True),
    ],
)
def test_operator_chooses_what_is_copied(fields: dict[str, Any], shared: bool, everything: bool):
    assert outputs.is_copied(run(**fields), Persist.SHARED) is shared
    assert outputs.is_copied(run(**fields), Persist.ALL) is everything
    assert not outputs.is_copied(run(**fields), Persist.OFF)


@pytest.mark.parametrize(
    ("output", "copies", "kept"),
    [
        ([A], [copy()], True),
        ([A, A], [copy()], True),
        ([A, B], [copy()], False),
        ([A, B], [copy(), copy(1, B)], True),
        ([A, "https://elsewhere.example/x"], [copy()], False),
        ([A, "see replicate.delivery/x"], [copy()], False),
        (["text"], [], True),
    ],
)
def test_result_outlives_its_links_only_if_all_are_copied(output: Any, copies: list[Copy], kept: bool):
    assert outputs.are_kept(json.dumps(output).encode(), copies) is kept


def test_result_is_shared_no_longer_than_its_oldest_copy():
    copies = [copy(stored_at=END + 60), copy(1, stored_at=END + 5)]
    assert outputs.usable_until(copies, DAY) == END + 5 + DAY - outputs.FETCH_SECONDS


def test_links_switch_after_upstreams_hour_and_at_once_in_hits():
    """While both work, upstream's own is shown."""
    for source in (Source.MISS, Source.JOINED, Source.BYPASS):
        seen = view(source, copies=(copy(),))
        assert not outputs.are_shown(seen, END + LINKS_LIVE_SECONDS - 1)
        assert outputs.are_shown(seen, END + LINKS_LIVE_SECONDS)
    assert outputs.are_shown(view(Source.HIT, copies=(copy(),)), END + 1)
    assert not outputs.are_shown(view(Source.HIT), END + DAY)


def test_link_names_prediction_and_index_and_cannot_be_forged():
    seen = view(Source.HIT, copies=(copy(), copy(1, B, sha256="b" * 64)))
    links = outputs.links(seen, SECRET, ORIGIN, END + 10, DAY)
    assert list(links) == [A, B]
    assert links[A].startswith(f"{ORIGIN}/outputs/{'p' * 26}-0-")
    assert links[A].endswith("/out-0.png")
    assert links == outputs.links(seen, SECRET, ORIGIN, END + 11, DAY)
    other = replace(seen, prediction=replace(seen.prediction, id="q" * 26))
    assert outputs.links(other, SECRET, ORIGIN, END + 10, DAY)[A][-70:] != links[A][-70:]
    assert outputs.links(seen, b"other", ORIGIN, END + 10, DAY)[A] != links[A]
    assert outputs.links(seen, SECRET, ORIGIN, END + 5 + DAY, DAY) == {}
    assert outputs.links(replace(seen, run=run()), SECRET, ORIGIN, END + 10, DAY) == {}


@pytest.mark.parametrize(
    ("path", "name", "whole_name"),
    [
        ("a/out-0.png", "out-0.png", ""),
        ("a/out-0.png?x=1#y", "out-0.png", ""),
        ("a/sch%C3%B6n%20hier.mp4", "sch_n_hier.mp4", "sch%C3%B6n%20hier.mp4"),
        ("a/%22;x=y.png", "__x=y.png", "%22%3Bx%3Dy.png"),
        ("a/..%2F..%2Fetc", ".._.._etc", ""),
        ("a/%0d%0aX: y", "__X__y", "__X%3A%20y"),
        ("a/", "output", ""),
        ("a/..", "output", ""),
        ("a/%ff.png", "_.png", "%EF%BF%BD.png"),
        (f"a/{'n' * 300}.webp", f"{'n' * 95}.webp", f"{'n' * 300}.webp"),
        (f"a/{'n' * 300}", "n" * 100, "n" * 300),
    ],
)
def test_names_fit_a_path_and_a_header(path: str, name: str, whole_name: str):
    """The link needs no escapes; a saved file has the output's own name."""
    url = f"https://replicate.delivery/{path}"
    assert outputs.name_of(url) == name
    extended = f"; filename*=UTF-8''{whole_name}" if whole_name else ""
    assert outputs.disposition(url) == f'inline; filename="{name}"{extended}'


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ("image/png", "image/png"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("text/html; charset=x\r\nSet-Cookie: a=b", "application/octet-stream"),
        ("picture", "application/octet-stream"),
        ("", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_type_is_upstreams_if_valid(given: str | None, served: str):
    assert outputs.content_type(given) == served


def test_retry_pauses_grow_to_a_limit():
    pauses = [outputs.pause(attempt, 1.0) for attempt in range(40)]
    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert max(pauses) == pauses[-1] == 300.0
    assert outputs.pause(0, 0.0) == 1.0
