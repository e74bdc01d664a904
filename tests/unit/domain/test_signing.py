"""Webhook signatures."""

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

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


def test_documented_example_is_signed_as_documented():
    """Receivers that follow the standard accept the gateway's signatures."""
    assert signing.sign(KEY, ID, AT, BODY) == SIGNATURE
    assert signing.is_signed(KEY, headers(), BODY, AT)


def test_any_of_several_signatures_is_enough():
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
def test_changed_or_old_message_is_refused(changed, body, now):
    """A message that was tampered with, or is replayed later, is ignored."""
    assert not signing.is_signed(KEY, headers(**changed), body, now)


@given(st.binary(min_size=24, max_size=64), st.binary(max_size=200))
def test_signature_agrees_with_the_standards_library(key, body):
    """Two implementations, one signature."""
    at = datetime.fromtimestamp(AT, UTC)
    text = json.dumps(body.hex())
    assert signing.sign(key, ID, AT, text.encode()) == Webhook(key).sign(ID, at, text)


@given(
    st.binary(min_size=24, max_size=64),
    st.binary(max_size=200).map(bytes.hex),
    st.sampled_from(["", "id", "timestamp", "signature", "body", "key"]),
    st.integers(-2 * signing.TOLERANCE_SECONDS, 2 * signing.TOLERANCE_SECONDS),
    st.booleans(),
)
def test_verification_agrees_with_the_standards_library(
    key: bytes, body: str, changed: str, age: int, has_older_signature: bool
):
    """A message that receivers' own libraries accept or refuse is accepted or refused here, too."""
    # The library reads the system's clock. Messages near the limit of age are left out: a second may pass meanwhile.
    assume(abs(abs(age) - signing.TOLERANCE_SECONDS) > 5)
    now = int(time.time())
    signature = signing.sign(key, ID, now - age, json.dumps(body).encode())
    if has_older_signature:
        signature = f"v1,{'A' * 43}= {signature}"
    message = headers(timestamp=str(now - age), signature=signature)
    match changed:
        case "id":
            message["webhook-id"] += "x"
        case "signature":
            # Still base64: of what is not, the library makes an error of its own.
            message["webhook-signature"] = "v1," + base64.b64encode(bytes(32)).decode()
        case "timestamp":
            message["webhook-timestamp"] = str(now - age + 1)
        case "body":
            body += "0"
        case "key":
            key = bytes([key[0] ^ 1]) + key[1:]
    try:
        Webhook(key).verify(json.dumps(body), message)
        is_accepted = True
    except WebhookVerificationError:
        is_accepted = False
    assert signing.is_signed(key, message, json.dumps(body).encode(), now) == is_accepted


@given(st.binary(min_size=24, max_size=64))
def test_secret_is_read_as_the_standards_library_reads_it(key: bytes):
    """A secret from Replicate's API verifies the same messages here as in a receiver."""
    secret = "whsec_" + base64.b64encode(key).decode()
    assert signing.sign(signing.key_of(secret), ID, AT, b"x") == Webhook(secret).sign(
        ID, datetime.fromtimestamp(AT, UTC), "x"
    )


def test_invalid_secret_is_a_clear_error():
    """A mistyped secret is a clear error."""
    with pytest.raises(ValueError, match="not a webhook secret"):
        signing.key_of("whsec_not base64!")
