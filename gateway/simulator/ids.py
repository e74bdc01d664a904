"""Identifiers in Replicate's formats, so that tests find code that depends on a format."""

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
    """Create an id in the format used since 2024: 26 characters of Crockford's base32.

    The middle part increases slowly. Two recorded ids, five months apart, show that it is the epoch time in
    milliseconds, shifted right by 17 bits.
    """
    ticks = int(now * 1000) >> 17
    middle = "".join(_CROCKFORD[(ticks >> shift) & 31] for shift in range(25, -1, -5))
    return f"{_random(_CROCKFORD, 10)}r{_random(_CROCKFORD, 2)}{middle}{_random(_CROCKFORD, 7)}"


def is_old_prediction_id(value: str) -> bool:
    """Say whether an id has the format used until early 2024 (base32 of RFC 4648)."""
    return len(value) == 26 and value[13] != "0" and all(letter in _BASE32 for letter in value)


def old_prediction_id(seed: str) -> str:
    """Derive an id in the old format from a seed, for the examples in the catalog."""
    return base64.b32encode(hashlib.sha256(seed.encode()).digest()).decode().lower()[:26]


def stream_token() -> str:
    """Create the unguessable part of a text stream's URL: 256 bits as 52 characters."""
    return base64.b32encode(secrets.token_bytes(32)).decode().lower().rstrip("=")


def file_stream_token() -> str:
    """Create the unguessable part of a file stream's URL."""
    return f"{_random(_LETTERS, 4)}-{stream_token()}"


def file_id() -> str:
    """Create a file id: base64 of a UUID as text, 48 characters."""
    return base64.b64encode(str(uuid.uuid4()).encode()).decode()


def version_id(seed: str) -> str:
    """Derive a version id from a seed."""
    return hashlib.sha256(f"replicate-gateway simulator {seed}".encode()).hexdigest()


def output_path(name: str) -> str:
    """Create the path of a hosted output, with shard and unguessable folder."""
    shard = secrets.choice(("pbxt", "xezq", "yhqm", "czjl", "mgxm"))
    return f"/{shard}/{secrets.token_urlsafe(33).replace('-', 'x')}/{name}"


def message_id() -> str:
    """Create the id of a webhook message."""
    return f"msg_{_random('23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz', 21)}"


def _random(alphabet: str, length: int) -> str:
    # One call for all characters, because load tests create many ids.
    return "".join(alphabet[byte % len(alphabet)] for byte in secrets.token_bytes(length))
