"""Identifiers in the forms that Replicate gives them, so that code which leans on a form is found out."""

import base64
import hashlib
import re
import secrets
import uuid

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

VERSION_ID = re.compile(r"^[0-9a-f]{64}$")
STREAM_TOKEN = re.compile(r"^[a-z2-7]{52}$")
FILE_STREAM_TOKEN = re.compile(r"^[a-z]{4}-[a-z2-7]{52}$")


def prediction_id(now: float) -> str:
    """Make an id of the form in use since 2024: 26 of Crockford's base32 with a slowly rising part in the middle.

    Two recorded ids five months apart show that part to be the epoch milliseconds shifted right by 17 bits.
    """
    ticks = int(now * 1000) >> 17
    middle = "".join(_CROCKFORD[(ticks >> shift) & 31] for shift in range(25, -1, -5))
    return f"{_random(_CROCKFORD, 10)}r{_random(_CROCKFORD, 2)}{middle}{_random(_CROCKFORD, 7)}"


def is_old_prediction_id(value: str) -> bool:
    """Tell whether an id has the form used until early 2024, RFC 4648's base32."""
    return len(value) == 26 and value[13] != "0" and all(letter in _BASE32 for letter in value)


def old_prediction_id(seed: str) -> str:
    """Derive an id of the old form, always the same for the same seed (for the examples of the catalogue)."""
    return base64.b32encode(hashlib.sha256(seed.encode()).digest()).decode().lower()[:26]


def stream_token() -> str:
    """Make the unguessable part of a text stream's address: 256 bits as 52 letters."""
    return base64.b32encode(secrets.token_bytes(32)).decode().lower().rstrip("=")


def file_stream_token() -> str:
    """Make the same for a stream whose events are files."""
    return f"{_random(_LETTERS, 4)}-{stream_token()}"


def file_id() -> str:
    """Make a file's id: the base64 of a UUID's text, 48 characters."""
    return base64.b64encode(str(uuid.uuid4()).encode()).decode()


def version_id(seed: str) -> str:
    """Derive a version's id, always the same for the same seed."""
    return hashlib.sha256(f"replicate-gateway simulator {seed}".encode()).hexdigest()


def output_path(name: str) -> str:
    """Make the path of one hosted output, shard and unguessable folder included."""
    shard = secrets.choice(("pbxt", "xezq", "yhqm", "czjl", "mgxm"))
    return f"/{shard}/{secrets.token_urlsafe(33).replace('-', 'x')}/{name}"


def message_id() -> str:
    """Make a webhook message's id."""
    return f"msg_{_random('23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz', 21)}"


def _random(alphabet: str, length: int) -> str:
    # One call for all letters: ids are made for every prediction of a load test.
    return "".join(alphabet[byte % len(alphabet)] for byte in secrets.token_bytes(length))
