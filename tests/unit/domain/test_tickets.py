"""Tickets of streams and of output files."""

import base64
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import tickets
from gateway.domain.records import Kind, Prediction, Source

SECRETS = st.binary(min_size=32, max_size=32)
IDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=26, max_size=26)


@given(SECRETS, IDS)
def test_ticket_has_the_form_of_upstreams_stream_urls(secret, prediction_id):
    """The JavaScript client recognises file streams by the form of the path."""
    ticket = tickets.ticket(secret, prediction_id)
    assert re.fullmatch(tickets.TICKET, ticket)
    assert re.fullmatch(tickets.FILE_TICKET, tickets.FILE_PREFIX + ticket)
    assert prediction_id not in ticket


@given(SECRETS, IDS)
def test_ticket_is_a_proof_and_the_hidden_id_in_base_32(secret, prediction_id):
    """Made with the standard library alone: those of earlier versions stay valid."""
    packed = int(prediction_id, 36).to_bytes(17, "big")
    proof = hmac.digest(secret, b"stream-proof:" + packed, "sha256")[:15]
    pad = hmac.digest(secret, b"stream-pad:" + proof, "sha256")[:17]
    content = proof + bytes(one ^ other for one, other in zip(packed, pad, strict=True))
    assert tickets.ticket(secret, prediction_id) == base64.b32encode(content).decode().rstrip("=").lower()


@given(SECRETS, IDS, IDS)
def test_every_prediction_has_its_own_ticket(secret, one, other):
    """Every response shows the same one; another prediction's is refused."""
    assert (tickets.ticket(secret, one) == tickets.ticket(secret, other)) == (one == other)


@given(SECRETS, SECRETS, IDS)
def test_ticket_cannot_be_made_without_the_secret(one, other, prediction_id):
    """Knowing an id is not enough to read the stream."""
    assert (tickets.ticket(one, prediction_id) == tickets.ticket(other, prediction_id)) == (one == other)


@given(SECRETS, IDS)
def test_ticket_leads_back_to_its_prediction(secret, prediction_id):
    """With the prefix of file streams too. Nothing has to be stored for it."""
    ticket = tickets.ticket(secret, prediction_id)
    assert tickets.prediction_of(secret, ticket) == prediction_id
    assert tickets.prediction_of(secret, tickets.FILE_PREFIX + ticket) == prediction_id
    assert tickets.stored(secret, prediction_id) == ""


@given(SECRETS, SECRETS, IDS)
def test_ticket_cannot_be_read_with_another_secret(one, other, prediction_id):
    assert (tickets.prediction_of(other, tickets.ticket(one, prediction_id)) is None) == (one != other)


@given(SECRETS, IDS, st.integers(0, 51), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_changed_ticket_opens_nothing(secret, prediction_id, at, letter):
    """Not even one that differs in bits that its decoder ignores."""
    ticket = tickets.ticket(secret, prediction_id)
    changed = ticket[:at] + letter + ticket[at + 1 :]
    assert (tickets.prediction_of(secret, changed) is None) == (changed != ticket)


@given(SECRETS, st.text(max_size=80))
def test_other_text_is_no_ticket(secret, text):
    assert tickets.prediction_of(secret, text) is None


@given(SECRETS, st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=52, max_size=52))
def test_ticket_of_an_earlier_version_contains_no_id(secret, text):
    """It is looked up by its digest."""
    assert tickets.prediction_of(secret, text) is None


@given(SECRETS, st.sampled_from(["p1", "A" * 26, "1_2" + "a" * 23, "é" * 26, "a" * 27, "a" * 26 + "\n"]))
def test_ids_of_another_form_have_tickets_that_are_looked_up(secret, prediction_id):
    """If upstream changed the form of its ids, streams would still open."""
    ticket = tickets.ticket(secret, prediction_id)
    assert re.fullmatch(tickets.TICKET, ticket)
    assert tickets.prediction_of(secret, ticket) is None
    kept = tickets.stored(secret, prediction_id)
    assert kept == tickets.fingerprint(ticket) == tickets.fingerprint(tickets.FILE_PREFIX + ticket)
    assert re.fullmatch(r"[0-9a-f]{64}", kept)
    assert ticket not in kept


def test_derivation_is_stable():
    """Pages keep tickets: an upgrade must not change how they are made."""
    assert tickets.ticket(b"0" * 32, "a" * 26) == "6qtcqugemqlij5ubxre7saui2im2pyrz3nzimefi6mzppqr2n6xq"
    assert tickets.ticket(b"0" * 32, "another form") == "wgitmuifgozphbtkj4gco4g3qklmkvc4orws5dtiafhsvn4tajya"


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
def test_ticket_is_valid_for_its_time_and_origins(origins, origin, is_open):
    """Its last moment is the one before it expires; one that is bound to origins needs a request with one."""
    prediction = Prediction(
        id="p", run_id="r", kind=Kind.PREDICTION, team="t", key_id="k", source=Source.MISS, created_at=0.0, ticket="x",
        ticket_expires_at=100.0, ticket_origins=origins,
    )  # fmt: skip
    assert tickets.opens(prediction, 99.9, origin) is is_open
    assert not tickets.opens(prediction, 100.0, origin)


def test_output_ticket_is_for_one_prediction_index_and_content():
    """Knowing one does not help to make another, not even for the same bytes elsewhere."""
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
def test_malformed_text_is_no_output_ticket(text: str):
    assert tickets.read_output_ticket(text) is None
