"""What a run used, from documents as upstream writes them, and as nobody should."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.documents import without_data
from gateway.domain.records import Status
from gateway.money.rules.usage import MOST_OUTPUTS, MOST_SECONDS, MOST_TOKENS, Doubt, Usage, usage_of
from tests.support.json_strategies import SPELLED, VALUES

CASSETTES = Path(__file__).parents[4].parent / "shared" / "fixtures" / "cassettes"
DATES = {"started_at": "2024-04-22T11:15:14.604575Z", "completed_at": "2024-04-22T11:15:16.604578Z"}
TIMES = {"predict_time": 2.5, "total_time": 3}


def read(status: Status = Status.SUCCEEDED, **fields: Any) -> Usage:
    return usage_of(json.dumps({"id": "x", **fields}).encode(), status)


def doubts(usage: Usage) -> set[Doubt]:
    """Return the doubts, without the one that every run of a model without tokens has."""
    return set(usage.doubts) - {Doubt.TOKENS_MISSING}


# Time ------------------------------------------------------------------------------------------------------------


def test_time_is_upstreams_to_the_last_digit() -> None:
    """3e-06 is three microseconds, and not nothing."""
    usage = usage_of(b'{"metrics":{"predict_time":3e-06,"total_time":0.135578},"output":null}', Status.CANCELED)
    assert usage == Usage(status=Status.CANCELED, seconds=Decimal("0.000003"))
    assert read(metrics={"predict_time": 0.1}).seconds == Decimal("0.1")


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_missing_time_is_computed_from_the_dates(status: Status) -> None:
    """Upstream computes it in this way, too; the charge says so."""
    for metrics in (None, {}, {"predict_time": None}):
        usage = read(status, metrics=metrics, **DATES)
        assert usage.seconds == Decimal("2.000003")
        assert doubts(usage) == {Doubt.TIME_FROM_DATES}


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED, Status.ABORTED])
def test_run_that_never_started_took_no_time(status: Status) -> None:
    """Waiting in the queue is free, and nothing is doubtful about it."""
    usage = read(status, metrics={"total_time": 12.5}, started_at=None, completed_at=DATES["completed_at"])
    assert usage == Usage(status=status)


@pytest.mark.parametrize(
    "dates",
    [
        {}, {"started_at": DATES["started_at"]}, {"completed_at": DATES["completed_at"]},
        {"started_at": DATES["completed_at"], "completed_at": DATES["started_at"]},
        {"started_at": "1970-01-01T00:00:00Z", "completed_at": "9999-12-31T23:59:59Z"},
        {"started_at": "soon", "completed_at": "later"}, {"started_at": 1, "completed_at": [2]},
    ],
)  # fmt: skip
def test_success_without_any_time_is_doubtful(dates: dict[str, Any]) -> None:
    """Nothing is invented: no time is charged, and it is reported."""
    usage = read(**dates)
    assert usage.seconds == 0
    assert Doubt.TIME_MISSING in usage.doubts


@pytest.mark.parametrize(
    "odd", ["-1", "-1e-9", '"2.5"', "true", "[1]", "{}", "1e9", "1e400", "1e99999999999999999999", "9" * 500, "1e-5000"]
)
def test_odd_time_counts_as_absent(odd: str) -> None:
    """It neither raises, nor becomes a bill of millions, nor a negative one."""
    body = f'{{"metrics":{{"predict_time":{odd}}}}}'.encode()
    usage = usage_of(body, Status.SUCCEEDED)
    assert usage.seconds == 0
    assert doubts(usage) == {Doubt.TIME_ODD, Doubt.TIME_MISSING}
    dated = body[:-1] + b',"started_at":"2024-04-22T11:15:14Z","completed_at":"2024-04-22T11:15:16Z"}'
    usage = usage_of(dated, Status.SUCCEEDED)
    assert usage.seconds == 2
    assert doubts(usage) == {Doubt.TIME_ODD, Doubt.TIME_FROM_DATES}


def test_longest_run_is_a_week() -> None:
    """A longer time is no measurement."""
    assert read(metrics={"predict_time": MOST_SECONDS}).seconds == MOST_SECONDS
    assert read(metrics={"predict_time": MOST_SECONDS + 1}).seconds == 0


# Outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "count"),
    [
        (None, 0), ([], 0), (["a"], 1), (["a", "b", None, {"c": []}], 4), ("text", 1), ("", 1), ({"a": 1}, 1),
        (0, 1), (False, 1), ([[1, 2], [3]], 2), (["]", "[", "\\", '"'], 4),
    ],
)  # fmt: skip
def test_outputs_are_counted(output: Any, count: int) -> None:
    """A list by its length, anything else as one, and null as none."""
    usage = read(metrics=TIMES, output=output)
    assert (usage.outputs, doubts(usage)) == (count, set())


def test_lone_surrogates_do_not_prevent_counting() -> None:
    """A text that was cut inside an emoji is an output, too."""
    assert usage_of(rb'{"output":["\ud83d","b"],"metrics":{"x\ud83d":1,"predict_time":1}}', Status.FAILED).outputs == 2


def test_models_image_count_wins() -> None:
    """A model that packs four images into one file says so."""
    assert read(metrics={**TIMES, "image_count": 4}, output="https://x/grid.png").outputs == 4
    assert read(metrics={**TIMES, "image_count": 4.0}, output=None).outputs == 4
    assert read(metrics={**TIMES, "image_count": 0}, output=["a"]).outputs == 0


@pytest.mark.parametrize("odd", [-1, 1.5, "4", True, [], 10**30, MOST_OUTPUTS + 1])
def test_odd_image_count_falls_back_to_the_output(odd: Any) -> None:
    """What the model reports is validated."""
    usage = read(metrics={**TIMES, "image_count": odd}, output=["a", "b"])
    assert (usage.outputs, doubts(usage)) == (2, {Doubt.OUTPUTS_ODD})


def test_removed_output_counts_as_one() -> None:
    """A run that is first read an hour after its end, because the gateway was down, is not free."""
    document = json.dumps({"status": "succeeded", "output": ["a", "b"], "metrics": TIMES}).encode()
    late = usage_of(without_data(document), Status.SUCCEEDED)
    assert (late.outputs, doubts(late)) == (1, {Doubt.OUTPUTS_REMOVED})
    assert usage_of(without_data(document), Status.CANCELED).outputs == 0


# Tokens ----------------------------------------------------------------------------------------------------------


def test_tokens_are_as_the_model_counted_them() -> None:
    """In and out, each with its own price."""
    usage = read(metrics={**TIMES, "input_token_count": 12, "output_token_count": 345.0})
    assert (usage.input_tokens, usage.output_tokens, usage.doubts) == (12, 345, frozenset())


def test_success_without_tokens_is_doubtful() -> None:
    """They count as none; a failed or cancelled run needs none."""
    assert read(metrics={**TIMES, "input_token_count": 12}).doubts == {Doubt.TOKENS_MISSING}
    assert read(Status.CANCELED, metrics=TIMES).doubts == frozenset()


@pytest.mark.parametrize("odd", [-1, 0.5, "7", MOST_TOKENS + 1, 1e300, {}])
def test_odd_tokens_are_ignored(odd: Any) -> None:
    """A model's mistake does not become a bill of millions."""
    usage = read(Status.FAILED, metrics={**TIMES, "output_token_count": odd})
    assert (usage.output_tokens, usage.doubts) == (0, {Doubt.TOKENS_ODD})


# Anything --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"null", b"{", b"\xff", b'{"metrics":{"predict_time":NaN}}', b"[" * 9999]
)
def test_unreadable_document_is_doubtful(document: bytes) -> None:
    """It is reported, and nothing is charged for it."""
    assert usage_of(document, Status.FAILED) == Usage(
        status=Status.FAILED, doubts=frozenset({Doubt.DOCUMENT_UNREADABLE})
    )


@pytest.mark.parametrize("metrics", [[], "x", 1, True])
def test_metrics_that_are_no_object_count_as_absent(metrics: Any) -> None:
    """The dates are still used."""
    usage = read(metrics=metrics, output=["a"], **DATES)
    assert doubts(usage) == {Doubt.METRICS_UNREADABLE, Doubt.TIME_FROM_DATES}
    assert (usage.seconds, usage.outputs) == (Decimal("2.000003"), 1)


NAMES = st.sampled_from(["predict_time", "image_count", "input_token_count", "output_token_count", "total_time"])
FIELDS = st.sampled_from(["metrics", "output", "data_removed", "started_at", "completed_at", "status"])


def assert_sound(usage: Usage) -> None:
    assert 0 <= usage.seconds <= MOST_SECONDS
    assert 0 <= usage.outputs <= MOST_OUTPUTS
    assert 0 <= usage.input_tokens <= MOST_TOKENS
    assert 0 <= usage.output_tokens <= MOST_TOKENS


@given(st.dictionaries(FIELDS, VALUES), st.none() | st.dictionaries(NAMES, VALUES), st.sampled_from(Status))
def test_any_document_has_usage_of_at_least_zero(
    fields: dict[str, Any], metrics: dict[str, Any] | None, status: Status
) -> None:
    """Whatever a model reports, it earns no caller money and stops no settlement."""
    body = {**fields, "metrics": metrics} if metrics is not None else fields
    assert_sound(usage_of(json.dumps(body).encode(), status))


@given(st.lists(st.tuples(NAMES, SPELLED)), st.lists(st.tuples(FIELDS, SPELLED)), st.sampled_from(Status))
def test_any_spelling_has_usage(metrics: list[tuple[str, str]], fields: list[tuple[str, str]], status: Status) -> None:
    """Numbers as JSON allows them, keys twice, halves of emoji."""
    inner = ",".join(f'"{name}":{value}' for name, value in metrics)
    outer = "".join(f',"{name}":{value}' for name, value in fields)
    assert_sound(usage_of(f'{{"metrics":{{{inner}}}{outer}}}'.encode(), status))


@given(st.binary(max_size=60), st.sampled_from(Status))
def test_any_bytes_have_usage(document: bytes, status: Status) -> None:
    """Not even invalid JSON raises."""
    assert_sound(usage_of(document, status))


# Recordings ------------------------------------------------------------------------------------------------------


def recorded() -> list[dict[str, Any]]:
    found = []
    for path in sorted(CASSETTES.glob("*.yaml")):
        for each in yaml.safe_load(path.read_text())["interactions"]:
            answer = each["response"]
            body = answer.get("content") or answer.get("body", {}).get("string")
            if isinstance(body, str) and body.startswith("{"):
                document = json.loads(body)
                example = document.get("default_example")
                found += [
                    each for each in (document, example) if each and "predict_time" in (each.get("metrics") or {})
                ]
    return found


@pytest.mark.skipif(not CASSETTES.is_dir(), reason="the recordings of Replicate are not available")
def test_recorded_documents_have_their_time_and_outputs() -> None:
    """What the real service wrote is read without doubt, and its dates give the time that it measured."""
    documents = recorded()
    assert {document["status"] for document in documents} == {"succeeded", "canceled"}
    for document in documents:
        status = Status(document["status"])
        usage = usage_of(json.dumps(document).encode(), status)
        assert usage.seconds == Decimal(repr(document["metrics"]["predict_time"]))
        assert usage.outputs == len(document["output"] or [])
        assert not doubts(usage)
        undated = usage_of(json.dumps({**document, "metrics": {}}).encode(), status)
        assert undated.seconds == usage.seconds
        assert doubts(undated) == {Doubt.TIME_FROM_DATES}
