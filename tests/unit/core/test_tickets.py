"""Stream tickets."""

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.core import tickets

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
