"""Webhook signatures."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from gateway.domain import signing

# Replicate's own example (docs/replicate-api.md, Webhooks).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
KEY = signing.key_of(SECRET)


def headers(**changed: str) -> dict[str, str]:
    return {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE} | {
        f"webhook-{name}": value for name, value in changed.items()
    }


def test_the_documented_example_is_signed_as_documented():
    """Receivers that follow the standard accept what is signed here."""
    assert signing.sign(KEY, ID, AT, BODY) == SIGNATURE
    assert signing.is_signed(KEY, headers(), BODY, AT)


def test_any_of_several_signatures_will_do():
    """While a secret is rotated, messages carry two signatures."""
    assert signing.is_signed(KEY, headers(signature=f"v1,AAAA {SIGNATURE} v2,x"), BODY, AT)


@pytest.mark.parametrize(
    ("changed", "body", "now"),
    [
        ({"signature": "v1,AAAA"}, BODY, AT),
        ({"signature": ""}, BODY, AT),
        ({"id": "msg_other"}, BODY, AT),
        ({"id": ""}, BODY, AT),
        ({"timestamp": str(AT + 1)}, BODY, AT),
        ({"timestamp": "soon"}, BODY, AT),
        ({"timestamp": "١٦١٤٢٦٥٣٣٠"}, BODY, AT),
        ({}, BODY + b" ", AT),
        ({}, BODY, AT + signing.TOLERANCE_SECONDS + 1),
        ({}, BODY, AT - signing.TOLERANCE_SECONDS - 1),
    ],
)
def test_what_was_changed_or_is_old_is_refused(changed, body, now):
    """A message that was tampered with, or is played again later, is no news."""
    assert not signing.is_signed(KEY, headers(**changed), body, now)


@given(st.binary(min_size=24, max_size=64), st.binary(max_size=200))
def test_the_standards_own_library_agrees(key, body):
    """Two implementations, one signature."""
    at = datetime.fromtimestamp(AT, UTC)
    text = json.dumps(body.hex())
    assert signing.sign(key, ID, AT, text.encode()) == Webhook(key).sign(ID, at, text)


def test_a_secret_that_is_none_is_named():
    """A mistyped secret is a clear error."""
    with pytest.raises(ValueError, match="not a webhook secret"):
        signing.key_of("whsec_not base64!")
