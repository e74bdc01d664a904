"""`traceparent`, as W3C Trace Context has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import trace_context
from gateway.domain.trace_context import TraceContext

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_header_names_a_trace_and_a_parent():
    """The examples of the specification."""
    assert trace_context.parse(f"00-{TRACE}-{PARENT}-01") == TraceContext(TRACE, PARENT, is_sampled=True)
    assert trace_context.parse(f"00-{TRACE}-{PARENT}-00") == TraceContext(TRACE, PARENT, is_sampled=False)
    assert trace_context.parse(f"00-{TRACE}-{PARENT}-03") == TraceContext(TRACE, PARENT, is_sampled=True)


def test_later_versions_may_add_fields():
    """What follows the flags is theirs; version 00 has nothing there."""
    assert trace_context.parse(f"cc-{TRACE}-{PARENT}-01-what-the-future-brings") is not None
    assert trace_context.parse(f"cc-{TRACE}-{PARENT}-01.what") is None
    assert trace_context.parse(f"00-{TRACE}-{PARENT}-01-more") is None


@pytest.mark.parametrize(
    "header",
    [
        "", "00", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-1", f" 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n", f"0-{TRACE}-{PARENT}-01", f"01-{TRACE}-{PARENT}-01-" + "x" * 600,
        f"00-{'g' * 32}-{PARENT}-01", f"00_{TRACE}_{PARENT}_01",
    ],
)  # fmt: skip
def test_invalid_header_is_ignored(header):
    """Nothing of it reaches a log."""
    assert trace_context.parse(header) is None


@given(st.text())
def test_any_text_is_read_without_an_error(header):
    """Callers send what they like."""
    trace_context.parse(header)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_written_header_reads_back(trace, parent, is_sampled):
    """The called service understands it."""
    context = TraceContext(f"{trace:032x}", f"{parent:016x}", is_sampled=is_sampled)
    written = trace_context.write(context.trace_id, context.parent_id, is_sampled=is_sampled)
    assert trace_context.parse(written) == context
