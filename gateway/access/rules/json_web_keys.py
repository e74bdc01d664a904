"""The public keys of an issuer (JWKS, RFC 7517): which of them can verify which signatures."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import jwt
import msgspec

from gateway.access.rules.json_web_tokens import ALGORITHMS

_RSA: Final = frozenset(name for name in ALGORITHMS if name.startswith(("RS", "PS")))
_RSA_BITS: Final = range(2048, 8192 + 1)
"""Shorter keys can be broken (NIST SP 800-131A); longer ones take long to verify."""
_CURVES: Final = {
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("EC", "P-521"): "ES512",
    ("OKP", "Ed25519"): "EdDSA",
    ("OKP", "Ed448"): "EdDSA",
}
"""The one algorithm of each curve (RFC 7518, 3.4; RFC 8037)."""


class PublicKey(msgspec.Struct, frozen=True, eq=False):
    """A key, and the algorithms whose signatures it can verify."""

    key_id: str | None
    algorithms: frozenset[str]
    key: Any


class KeySet(msgspec.Struct, frozen=True, eq=False):
    """The usable keys of an issuer."""

    keys: tuple[PublicKey, ...]

    def find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """Return the key that a token names; of a token that names none, the only one that fits its algorithm."""
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if key_id is not None:
            return next((key for key in fitting if key.key_id == key_id), None)
        return fitting[0] if len(fitting) == 1 else None


def parse(body: bytes, max_keys: int) -> KeySet:
    """Read the first `max_keys` usable keys of a JWKS. Raise `ValueError`, with a message, if there are none.

    Keys for other purposes, of other types and those that are not valid are left out, as RFC 7517, 5 requires.
    """
    try:
        found = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("not a JWKS: it has no list of keys")  # noqa: TRY004 - the content is invalid, not a type
    keys = tuple(_first(filter(None, map(_usable, listed)), max_keys))
    if not keys:
        raise ValueError("it has no key that can verify a signature")
    return KeySet(keys)


def _first(keys: Iterable[PublicKey], most: int) -> Iterable[PublicKey]:
    return (key for key, _ in zip(keys, range(most), strict=False))


def _usable(given: Any) -> PublicKey | None:
    if not isinstance(given, dict):
        return None
    key_id, operations = given.get("kid"), given.get("key_ops", ["verify"])
    algorithms = _algorithms(given)
    if (
        not algorithms
        or not (key_id is None or isinstance(key_id, str))
        or given.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or "d" in given  # a private key, published by mistake: anybody can sign with it
    ):
        return None
    try:
        key = jwt.PyJWK(given, min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if algorithms <= _RSA and key.key_size not in _RSA_BITS:
        return None
    return PublicKey(key_id, algorithms, key)


def _algorithms(given: Mapping[str, Any]) -> frozenset[str]:
    """Return the algorithms of a key: those of its type, and of these the one that it names."""
    kind, curve, named = given.get("kty"), given.get("crv"), given.get("alg")
    if kind == "RSA":
        fitting = _RSA
    else:
        of_curve = _CURVES.get((kind, curve)) if isinstance(kind, str) and isinstance(curve, str) else None
        fitting = frozenset() if of_curve is None else frozenset({of_curve})
    if named is None or (named == curve and kind == "OKP"):  # RFC 9864 names these by their curve
        return fitting
    return fitting & {named} if isinstance(named, str) else frozenset()
