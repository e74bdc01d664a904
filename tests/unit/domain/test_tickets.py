"""Tickets of streams and of output files."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import tickets
from gateway.domain.records import Kind, Prediction, Source

SECRETS = st.binary(min_size=32, max_size=32)
IDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=26, max_size=26)


@given(SECRETS, IDS)
def test_a_ticket_has_the_form_of_upstreams_stream_urls(secret, prediction_id):
    """The JavaScript client tells file streams by the form of the path."""
    ticket = tickets.ticket(secret, prediction_id)
    assert re.fullmatch(tickets.TICKET, ticket)
    assert re.fullmatch(tickets.FILE_TICKET, tickets.FILE_PREFIX + ticket)
    assert prediction_id not in ticket


@given(SECRETS, IDS, IDS)
def test_every_prediction_has_its_own_ticket(secret, one, other):
    """Every answer shows the same one; another prediction's opens nothing."""
    assert (tickets.ticket(secret, one) == tickets.ticket(secret, other)) == (one == other)


@given(SECRETS, SECRETS, IDS)
def test_without_the_secret_no_ticket_can_be_made(one, other, prediction_id):
    """Knowing an id is not enough to watch."""
    assert (tickets.ticket(one, prediction_id) == tickets.ticket(other, prediction_id)) == (one == other)


@given(SECRETS, IDS)
def test_the_fingerprint_ignores_the_prefix_of_file_streams(secret, prediction_id):
    """One record serves both paths, and does not hold the ticket."""
    ticket = tickets.ticket(secret, prediction_id)
    kept = tickets.fingerprint(ticket)
    assert kept == tickets.fingerprint(tickets.FILE_PREFIX + ticket)
    assert re.fullmatch(r"[0-9a-f]{64}", kept)
    assert ticket not in kept


def test_a_ticket_of_today_opens_its_stream_after_an_upgrade():
    """The derivation is part of what is stored: it must not change."""
    ticket = tickets.ticket(b"0" * 32, "a" * 26)
    assert ticket == "xoyoxuql7bzuslfcuowzwigobakiq2nfsjhqdcrvhvvrlmsp6csa"


PAGE, OTHER = "https://app.example.com", "https://b.example"


@pytest.mark.parametrize(
    ("origins", "origin", "is_open"),
    [
        (None, None, True),
        (None, OTHER, True),
        ((), None, True),
        ((PAGE,), PAGE, True),
        ((PAGE,), "https://APP.example.com", True),
        ((PAGE, OTHER), OTHER, True),
        ((PAGE,), OTHER, False),
        ((PAGE,), "null", False),
        ((PAGE,), None, False),
        (("*",), OTHER, True),
        (("*",), None, False),
    ],
)
def test_a_ticket_opens_for_its_time_and_its_pages(origins, origin, is_open):
    """Its last moment is the one before it expires; one that is bound to pages opens for no request without a page."""
    prediction = Prediction(
        id="p", run_id="r", kind=Kind.PREDICTION, team="t", key_id="k", source=Source.MISS, created_at=0.0, ticket="x",
        ticket_expires_at=100.0, ticket_origins=origins,
    )  # fmt: skip
    assert tickets.opens(prediction, 99.9, origin) is is_open
    assert not tickets.opens(prediction, 100.0, origin)


def test_an_output_ticket_is_of_one_prediction_one_place_and_these_bytes():
    """Whoever has one cannot make another, not even for the same bytes elsewhere."""
    text = tickets.output_ticket(b"secret", "p" * 26, 3, "a" * 64)
    assert re.fullmatch(tickets.OUTPUT_TICKET, text)
    said = tickets.read_output_ticket(text)
    assert said is not None
    assert said[:2] == ("p" * 26, 3)
    assert tickets.proves(said, b"secret", "a" * 64)
    assert not tickets.proves(said, b"secret", "b" * 64)
    assert not tickets.proves(said, b"other", "a" * 64)
    assert not tickets.proves(said._replace(place=4), b"secret", "a" * 64)
    assert not tickets.proves(said._replace(prediction_id="q" * 26), b"secret", "a" * 64)
    assert not tickets.proves(said._replace(proof="é"), b"secret", "a" * 64)


@pytest.mark.parametrize("text", ["", "p", "p-", "p-x-y", "p--y"])
def test_what_has_another_form_is_no_output_ticket(text: str):
    assert tickets.read_output_ticket(text) is None
