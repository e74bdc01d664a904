"""API keys: format, creation, parsing, comparison and validity; and removal of secrets from texts.

A key has the form `rgw_<id>_<secret>`. The id identifies the key and can be shown. The secret has 190 random bits and
is never stored: the store has the SHA-256 of the entire key. A plain hash is enough, because 190 bits cannot be
guessed.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.domain.records import Key

RANDOM_BYTES: Final = 48
"""Random bytes per key: 384 bits, of which about 253 are used, so that the divisions cause no measurable bias."""

_BASE36: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 12
_SECRET_LENGTH: Final = 32
_SHOWN: Final = 4
_SHORTEST_SHOWN: Final = 32
_KEY: Final = re.compile(r"rgw_([a-z0-9]{12})_[0-9A-Za-z]{32,128}")

REDACTED: Final = "[redacted]"
_SECRETS: Final = (
    (re.compile(r"\b(Bearer|Basic)(\s+)[^\s\"',;\\]+", re.IGNORECASE), rf"\1\2{REDACTED}"),
    (re.compile(r"\b(Token\s+)[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"rg[a-z]_[A-Za-z0-9][A-Za-z0-9_.=-]{5,}"), REDACTED),
    (re.compile(r"r8_[A-Za-z0-9_]{6,}"), REDACTED),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), REDACTED),
    # A JSON web token, such as a browser token. What follows the word is checked once for the word, so that a long word
    # is not searched again from each of its letters.
    (
        re.compile(
            r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*+\.[A-Za-z0-9_-]++\.)"
            r"([A-Za-z0-9_-]*?)eyJ[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*+"
        ),
        rf"\1{REDACTED}",
    ),
    # Tickets in paths of streams, file streams and stored outputs; upstream's too.
    (re.compile(r"(/(?:streams|files|outputs)/)[A-Za-z0-9_.~=%+-]{16,}"), rf"\1{REDACTED}"),
    (
        re.compile(r"([?&](?:token|ticket|key|sig|signature|x-amz-[a-z]+)=)[^&\s\"'#\\]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    # A ticket on its own (gateway.domain.tickets).
    (re.compile(r"(?<![A-Za-z0-9])(?:[a-z]{4}-)?[a-z2-7]{52}(?![A-Za-z0-9])"), REDACTED),
    # The contents of a data URI: part of an input.
    (re.compile(r"(data:[^\s,\"'\\]{0,100},)[^\s\"'\\]{16,}", re.IGNORECASE), rf"\1{REDACTED}"),
    # Credentials in a URL.
    (re.compile(r"(://)[^/\s\"'\\]+@"), rf"\1{REDACTED}@"),
)

# A short text without any of these matches none of the patterns above. Most logged texts are short, so this saves time.
_NEEDED: Final = re.compile(r"[_/=\s]|eyJ|data:", re.IGNORECASE)
SHORTEST_TICKET: Final = 52
"""Nothing is a secret in a shorter text that has letters and digits only."""


class Minted(NamedTuple):
    """A new key. `key` is shown to its owner once and not stored; `id` and `sha256` are stored."""

    id: str
    key: str
    sha256: str

    def __repr__(self) -> str:
        return f"Minted(id={self.id!r})"


def mint(randomness: bytes) -> Minted:
    """Create a key from cryptographically random bytes. Raise `ValueError` for fewer than `RANDOM_BYTES`."""
    if len(randomness) < RANDOM_BYTES:
        raise ValueError(f"a key needs {RANDOM_BYTES} random bytes, got {len(randomness)}")
    number = int.from_bytes(randomness[:RANDOM_BYTES])
    identity, number = _spell(number, _BASE36, _ID_LENGTH)
    secret, _ = _spell(number, _BASE62, _SECRET_LENGTH)
    key = f"rgw_{identity}_{secret}"
    return Minted(id=identity, key=key, sha256=digest(key))


def new_key(random_bytes: Callable[[int], bytes]) -> Minted:
    """Create a key with a random source such as `secrets.token_bytes`."""
    return mint(random_bytes(RANDOM_BYTES))


def digest(key: str) -> str:
    """Return the stored form of a key: the hex SHA-256 of the entire key."""
    # A header can contain bytes that are not UTF-8. aiohttp represents them as lone surrogates.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def last_four(key: str) -> str | None:
    """Return the end of a key, to recognise it by; `None` if that is too much of it."""
    return key[-_SHOWN:] if len(key) >= _SHORTEST_SHOWN else None


def parse(presented: str) -> str | None:
    """Return the id in a presented key; `None` if it does not have the form of a key."""
    match = _KEY.fullmatch(presented)
    return match[1] if match else None


def matches(presented: str, sha256: str) -> bool:
    """Return whether a presented key has this digest, in constant time."""
    return hmac.compare_digest(digest(presented).encode(), sha256.lower().encode("utf-8", "surrogatepass"))


def is_valid(key: Key, now: float) -> bool:
    """Return whether a key is neither expired nor revoked at `now`."""
    return all(end is None or now < end for end in (key.expires_at, key.revoked_at))


def conceal(text: str) -> str:
    """Replace everything in a text that looks like a key, token, webhook secret, ticket or credential."""
    if len(text) < SHORTEST_TICKET and not _NEEDED.search(text):
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _spell(number: int, alphabet: str, length: int) -> tuple[str, int]:
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(alphabet))
        letters.append(alphabet[index])
    return "".join(letters), number
