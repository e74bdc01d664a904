"""Which listed run fits an intent whose input is redacted in part."""

import json
from functools import partial

import pytest

from gateway.domain import documents
from gateway.domain.keyed_digest import KeyedDigest
from gateway.models.rules import secrets
from gateway.models.rules.schema import Shape
from gateway.models.rules.secrets import REDACTED
from gateway.predictions.rules import adoption
from gateway.predictions.rules.adoption import Fit
from tests.support.clock import START
from tests.support.records import intent

DIGEST = KeyedDigest(b"s" * 32, "inputs")
SECRET = {"token": Shape(marks=frozenset({"secret"}), holds_secret=True)}
GIVEN = {"text": "hi", "n": 1, "list": ["a", 2], "token": "sk-1"}


def request(given, hides="nothing", webhook=None) -> bytes:
    text = json.dumps(given).encode()
    if hides == "secrets":
        text = secrets.redact(text, SECRET).input
    if hides == "texts":
        text = secrets.digest_texts(text, DIGEST).input
    body = {"version": "acme/toy", "input": json.loads(text)} | ({"webhook": webhook} if webhook else {})
    return json.dumps(body).encode()


def fit(sent: bytes, shown, **more) -> Fit:
    document = {"id": "u", "status": "starting", "model": "acme/toy", "input": shown, **more}
    document["created_at"] = "2025-11-24T16:00:30Z"
    snapshot = documents.read_snapshot(json.dumps(document).encode())
    return adoption.fits(intent(request=sent, intended_at=START), snapshot, DIGEST)


SHOWN = GIVEN | {"token": REDACTED}
LEFT_OUT = {name: value for name, value in GIVEN.items() if name != "token"}


@pytest.mark.parametrize(
    ("hides", "shown", "fits"),
    [
        ("nothing", GIVEN, Fit.EXACT),
        ("nothing", GIVEN | {"n": 2}, Fit.NO),
        ("secrets", SHOWN, Fit.LIKELY),
        ("secrets", LEFT_OUT, Fit.LIKELY),
        ("secrets", SHOWN | {"text": "ho"}, Fit.NO),
        ("secrets", SHOWN | {"more": 1}, Fit.NO),
        ("secrets", GIVEN, Fit.NO),
        ("texts", GIVEN, Fit.EXACT),
        ("texts", SHOWN, Fit.LIKELY),
        ("texts", GIVEN | {"text": "ho"}, Fit.NO),
        ("texts", GIVEN | {"list": ["a", 3]}, Fit.NO),
        ("texts", SHOWN | {"n": 2}, Fit.NO),
        ("texts", LEFT_OUT, Fit.NO),
    ],
)
def test_redacted_values_are_left_out_of_the_comparison(hides, shown, fits):
    assert fit(request(GIVEN, hides), shown) is fits


def test_redaction_text_that_a_caller_sends_hides_nothing():
    """Otherwise it would fit any run that was started outside the gateway, and show it to the caller."""
    sent = request(GIVEN | {"text": REDACTED})
    assert fit(sent, GIVEN) is Fit.NO
    assert fit(sent, GIVEN | {"text": REDACTED}) is Fit.LIKELY


def test_webhook_of_the_gateways_own_decides_alone():
    sent = request(GIVEN, "secrets", webhook="https://gw/1")
    assert fit(sent, SHOWN, webhook="https://gw/1") is Fit.EXACT
    assert fit(sent, SHOWN, webhook="https://gw/2") is Fit.NO


def test_requests_are_compared_whatever_each_of_them_hides():
    """The schema can become known between two creates."""
    may_be_equal = partial(adoption.may_be_equal, digest=DIGEST)
    forms = [request(GIVEN, hides) for hides in ("nothing", "secrets", "texts")]
    others = [request(GIVEN | {"text": "ho"}, hides) for hides in ("nothing", "secrets", "texts")]
    assert all(may_be_equal(one, other) for one in forms for other in forms)
    assert not any(may_be_equal(one, other) for one in forms for other in others)
