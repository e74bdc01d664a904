"""The tree of errors, and which status each becomes."""

import inspect

import pytest

from gateway import errors
from gateway.errors import GatewayError, InvalidField, Unprocessable
from gateway.http.errors import status_of

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GatewayError)]
STATUS = {
    "GatewayError": 500, "BadRequest": 400, "Unprocessable": 422, "BodyTooLarge": 413, "UnsupportedMedia": 415,
    "BodyTooSlow": 400, "HeadTooLarge": 431, "CallerLeft": 499,
    "IssuerUnavailable": 503,
    "Unauthenticated": 401, "Forbidden": 403, "NotFound": 404, "OutputLost": 404, "Conflict": 409, "RateLimited": 429,
    "LimitReached": 429, "BudgetExceeded": 402, "PriceUnknown": 403,
    "UpstreamError": 502, "UpstreamUnavailable": 503, "UpstreamBroken": 502, "UpstreamUncertain": 504,
    "RunTakenOver": 504,
    "UpstreamUnreadable": 502, "UpstreamTooLarge": 502,
    "UpstreamTimeout": 504, "NotCached": 504, "Overloaded": 503, "UpstreamTokenRefused": 502, "StoreUnavailable": 503,
    "StoreAway": 503, "StoreTaken": 503,
}  # fmt: skip


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_its_status(kind):
    """Callers program against the table of errors."""
    error = kind() if kind in (Unprocessable, errors.NotFound, errors.OutputLost) else kind("So it is.")
    assert status_of(error) == STATUS[kind.__name__]
    assert error.title


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_tree_in_the_docstring_is_the_tree(kind):
    """The docstring shows every class and its status."""
    line = next((line for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line.split()), "")
    assert line, f"{kind.__name__} is not drawn"
    status = STATUS[kind.__name__]
    assert f"({status})" in line or kind in (GatewayError, errors.UpstreamError)


def test_error_carries_its_message():
    """The detail is the sentence; an own title replaces the class's."""
    error = errors.RateLimited("Too many.", title="Slow down", retry_after=3)
    assert (error.detail, error.title, error.retry_after, str(error)) == ("Too many.", "Slow down", 3, "Too many.")


def test_foreign_and_unknown_have_equal_errors():
    """The two cannot be distinguished."""
    assert errors.NotFound().detail == "The requested resource could not be found."


def test_fields_are_listed_as_replicate_lists_them():
    """One line for each field; the top level has no name."""
    error = Unprocessable(
        [InvalidField("required", "", "input is required"), InvalidField("enum", "input.x", "must be one of 1, 2")]
    )
    assert error.detail == "- input is required\n- input.x: must be one of 1, 2\n"
    assert error.title == "Input validation failed"
    assert Unprocessable.field("a", "b").fields == [InvalidField("invalid_value", "a", "b")]
    assert Unprocessable(detail="Plain.", title="T").detail == "Plain."
