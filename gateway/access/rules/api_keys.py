"""Keys: how they look, how one is made, recognised and judged; and how anything secret is struck from a text.

A key reads `rgw_<id>_<secret>`. The id says which key it is and may be shown; the secret is 190 bits of randomness and
is never kept: only the SHA-256 of the whole key is. A plain hash is enough for that, because nobody can guess 190 bits.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.domain.records import Key

RANDOM_BYTES: Final = 48
"""Randomness that one key takes: 384 bits for 253 used, so that the remainder of the division shows no bias."""

_BASE36: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 12
_SECRET_LENGTH: Final = 32
_KEY: Final = re.compile(r"rgw_([a-z0-9]{12})_[0-9A-Za-z]{32,128}")

REDACTED: Final = "[redacted]"
_SECRETS: Final = (
    (re.compile(r"\b(Bearer|Basic)(\s+)[^\s\"',;\\]+", re.IGNORECASE), rf"\1\2{REDACTED}"),
    (re.compile(r"\b(Token\s+)[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"rg[a-z]_[A-Za-z0-9][A-Za-z0-9_.=-]{5,}"), REDACTED),
    (re.compile(r"r8_[A-Za-z0-9_]{6,}"), REDACTED),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), REDACTED),
    # A JSON web token: what a page holds.
    (re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), REDACTED),
    # The part of a path that is itself the permission: streams, file streams, stored outputs; upstream's own too.
    (re.compile(r"(/(?:streams|files|outputs)/)[A-Za-z0-9_.~=%+-]{16,}"), rf"\1{REDACTED}"),
    (
        re.compile(r"([?&](?:token|ticket|key|sig|signature|x-amz-[a-z]+)=)[^&\s\"'#\\]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    # The same part of a path on its own (gateway.domain.tickets).
    (re.compile(r"(?<![A-Za-z0-9])(?:[a-z]{4}-)?[a-z2-7]{52}(?![A-Za-z0-9])"), REDACTED),
    # A file written into an address: part of an input.
    (re.compile(r"(data:[^\s,\"'\\]{0,100},)[^\s\"'\\]{16,}", re.IGNORECASE), rf"\1{REDACTED}"),
    # Credentials inside an address.
    (re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s\"'\\]+@", re.IGNORECASE), rf"\1{REDACTED}@"),
)

# Short texts without any of these match none of the above; most of what is logged is short, and for each request.
_NEEDED: Final = re.compile(r"[_/=\s]|eyJ|data:", re.IGNORECASE)
_SHORTEST_TICKET: Final = 52


class Minted(NamedTuple):
    """A fresh key. `key` is shown to its owner once, and then forgotten; the rest is kept."""

    id: str
    key: str
    sha256: str

    def __repr__(self) -> str:
        return f"Minted(id={self.id!r})"


def mint(randomness: bytes) -> Minted:
    """Make a key from at least `RANDOM_BYTES` bytes that nobody can foresee."""
    if len(randomness) < RANDOM_BYTES:
        raise ValueError(f"a key takes {RANDOM_BYTES} random bytes, got {len(randomness)}")
    number = int.from_bytes(randomness[:RANDOM_BYTES])
    identity, number = _spell(number, _BASE36, _ID_LENGTH)
    secret, _ = _spell(number, _BASE62, _SECRET_LENGTH)
    key = f"rgw_{identity}_{secret}"
    return Minted(id=identity, key=key, sha256=digest(key))


def new_key(random_bytes: Callable[[int], bytes]) -> Minted:
    """Make a key with a source of randomness, such as `secrets.token_bytes`."""
    return mint(random_bytes(RANDOM_BYTES))


def digest(key: str) -> str:
    """Return what is kept of a key: the hex SHA-256 of all of it."""
    # A header may hold bytes that are not UTF-8, which aiohttp hands on as lone surrogates.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def parse(presented: str) -> str | None:
    """Return the id inside of what a caller presents, or `None` if it does not look like a key."""
    match = _KEY.fullmatch(presented)
    return match[1] if match else None


def matches(presented: str, sha256: str) -> bool:
    """Say whether a presented key is the one of this digest, in a time that tells nothing."""
    return hmac.compare_digest(digest(presented).encode(), sha256.lower().encode("utf-8", "surrogatepass"))


def is_valid(key: Key, now: float) -> bool:
    """Say whether a key may be used at `now`. Its last moment is the one before it expires or is revoked."""
    return all(end is None or now < end for end in (key.expires_at, key.revoked_at))


def conceal(text: str) -> str:
    """Strike everything that looks like a secret from a text: keys, tokens, webhook secrets, tickets, credentials."""
    if len(text) < _SHORTEST_TICKET and not _NEEDED.search(text):
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
