"""Issuers of tokens for tests: their keys, their tokens, and servers that publish the keys."""

import asyncio
import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from gateway.access.ports import KeySource, KeysUnread
from gateway.access.rules.issuers import Issuer, KeyLocation
from gateway.access.rules.json_web_tokens import ALGORITHMS
from tests.support.http_calls import PAGE

ISSUER = "https://id.example.com"
AUDIENCE = "https://gateway.example.com"
HOUR = 3600.0


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a key that takes a moment to make, always the same one."""
    return rsa.generate_private_key(65537, bits)


@dataclass
class SigningKey:
    """A private key, its id and its algorithm."""

    kid: str | None
    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, as it is published."""
        method = get_default_algorithms()[self.algorithm]
        public: dict[str, Any] = json.loads(method.to_jwk(self.private.public_key()))
        public |= {"alg": self.algorithm, "use": "sig"}
        return public | ({} if self.kid is None else {"kid": self.kid})

    @property
    def pem(self) -> bytes:
        """The public half, as text."""
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        """Return a token."""
        headers = ({} if self.kid is None else {"kid": self.kid}) | header
        return jwt.encode(dict(claims), self.private, self.algorithm, headers)


def new_key(kid: str | None = "k1", algorithm: str = "ES256") -> SigningKey:
    """Make a key."""
    if algorithm.startswith("ES"):
        curves: dict[str, ec.EllipticCurve] = {
            "ES256": ec.SECP256R1(),
            "ES384": ec.SECP384R1(),
            "ES512": ec.SECP521R1(),
        }
        return SigningKey(kid, algorithm, ec.generate_private_key(curves[algorithm]))
    if algorithm == "EdDSA":
        return SigningKey(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
    return SigningKey(kid, algorithm, rsa_key())


def part(value: Any) -> str:
    """Return a part of a token: of bytes as they are, of anything else as JSON."""
    given = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(given).decode().rstrip("=")


def sign_raw(key: SigningKey, header: Any, claims: Any, algorithm: str | None = None, secret: Any = None) -> str:
    """Return a token with a header and claims as a test writes them, as bytes or as JSON, and a valid signature."""
    signed = f"{part(header)}.{part(claims)}"
    method = get_default_algorithms()[algorithm or key.algorithm]
    signature = method.sign(signed.encode(), key.private if secret is None else secret)
    return f"{signed}.{part(signature)}"


def jwks(*keys: SigningKey | Mapping[str, Any]) -> bytes:
    """Return what an issuer with these keys publishes."""
    return json.dumps({"keys": [key.jwk if isinstance(key, SigningKey) else key for key in keys]}).encode()


def claims_for(now: float, user: str = "ann", **more: Any) -> dict[str, Any]:
    """Return the claims of a valid token. Pass `None` to leave one out."""
    given = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": int(now), "exp": int(now + HOUR)} | more
    return {name: value for name, value in given.items() if value is not None}


def issuer(**more: Any) -> Issuer:
    """Return an issuer whose users are of team red."""
    given: dict[str, Any] = {
        "name": "id",
        "keys": KeyLocation(issuer=more.pop("url", ISSUER), **more.pop("keys", {})),
        "audiences": frozenset({AUDIENCE}),
        "algorithms": frozenset(ALGORITHMS),
        "team": "red",
        "user_prefix": "id:",
        "is_native": True,
    }
    return Issuer(**(given | more))


class FakeKeySource:
    """Issuers that answer with what a test sets, as soon as it lets them."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.trouble: KeysUnread | None = None
        self.reads = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def read(self, where: KeyLocation) -> bytes:
        """Return the keys."""
        self.reads += 1
        await self.may_answer.wait()
        if self.trouble is not None:
            raise self.trouble
        return self.body


@dataclass
class Provider:
    """An issuer that runs on this machine. What it publishes can be changed at any time."""

    url: str = ""
    key: SigningKey = field(default_factory=new_key)
    body: bytes | None = None
    """Instead of its key."""
    status: int = 200
    requests: list[str] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    configuration: dict[str, Any] = field(default_factory=dict)
    """Replaces values of its OpenID configuration."""
    codes: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """The requests for authorization by their codes. Each code counts once."""
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The claims of those who sign in, by code."""
    redeemed: list[tuple[str | None, dict[str, str]]] = field(default_factory=list)
    """What its token endpoint was asked: the header Authorization, and the form."""
    token_error: str | None = None
    """The token endpoint refuses every code with it."""

    def token(self, user: str = "ann", /, *, header: Mapping[str, Any] | None = None, **more: Any) -> str:
        """Return a valid token of a user, with other claims than usual."""
        claims = claims_for(time.time(), user, **({"iss": self.url} | more))
        return self.key.sign(claims, **(header or {}))

    def config(self, **more: Any) -> dict[str, Any]:
        """Return its table in a config."""
        given = {"issuer": self.url, "name": "id", "audience": AUDIENCE, "allow_private_addresses": True}
        return given | ({} if "team_claim" in more else {"team": "alpha"}) | more

    def sign_in(self, address: str, user: str = "ann", /, **claims: Any) -> dict[str, str]:
        """Let a person sign in at an address that the browser was sent to. Return what it is sent back with."""
        asked = dict(parse_qsl(urlsplit(address).query, strict_parsing=True))
        assert address.startswith(f"{self.url}/authorization?")
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        self.people[code] = {"aud": asked["client_id"], "nonce": asked["nonce"], "user": user} | claims
        return {"code": code, "state": asked["state"]}

    async def _redeem(self, request: web.Request) -> web.Response:
        sent = {name: str(value) for name, value in (await request.post()).items()}
        self.redeemed.append((request.headers.get("Authorization"), sent))
        asked = self.codes.pop(sent["code"], None)
        challenge = b64encode(sha256(sent.get("code_verifier", "").encode()).digest(), b"-_").decode().rstrip("=")
        if self.token_error or asked is None or challenge != asked["code_challenge"]:
            return web.json_response({"error": self.token_error or "invalid_grant"}, status=400)
        assert sent["redirect_uri"] == asked["redirect_uri"]
        claims = dict(self.people[sent["code"]])
        return web.json_response({"token_type": "Bearer", "id_token": self.token(claims.pop("user"), **claims)})

    async def serve(self, request: web.Request) -> web.Response:
        """Answer a request for the configuration or for the keys."""
        self.requests.append(request.path)
        await self.may_answer.wait()
        if request.path == "/.well-known/openid-configuration":
            endpoints = {f"{name}_endpoint": f"{self.url}/{name}" for name in ("authorization", "token")}
            found = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"} | endpoints | self.configuration
            return web.json_response(found, status=self.status)
        if request.path == "/token":
            return await self._redeem(request)
        body = jwks(self.key) if self.body is None else self.body
        return web.Response(body=body, status=self.status, content_type="application/json")


@asynccontextmanager
async def provider(**given: Any) -> AsyncIterator[Provider]:
    """Run an issuer."""
    made = Provider(**given)
    made.may_answer.set()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.serve)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        made.may_answer.set()
        await runner.cleanup()


FROM_PAGE = {"Origin": PAGE}

if TYPE_CHECKING:
    _: type[KeySource] = FakeKeySource
