"""Reading the keys of issuers: within seconds and bounds, from allowed addresses only."""

from typing import Any

import pytest

from gateway.access.ports import KeysUnread
from gateway.access.rules.issuers import KeyLocation
from gateway.access.rules.sign_in import CodeExchange
from gateway.upstream.issuers import IssuerClient, IssuerClientSettings
from tests.support.fake_resolver import FakeResolver
from tests.support.issuers import jwks, provider
from tests.support.raw_server import answer, raw_server


async def read(url: str, seconds: float = 5.0, **where: Any) -> bytes:
    location = KeyLocation(issuer=url, **({"allow_private_addresses": True} | where))
    async with IssuerClient(IssuerClientSettings(total_seconds=seconds)) as reader:
        return await reader.read(location)


async def unread(url: str, seconds: float = 5.0, **where: Any) -> str:
    with pytest.raises(KeysUnread) as caught:
        await read(url, seconds, **where)
    return caught.value.outcome


async def test_keys_are_found_by_the_configuration_or_at_their_address():
    """An issuer is enough; its address of keys saves a request."""
    async with provider() as known:
        assert await read(known.url) == jwks(known.key)
        assert known.requests == ["/.well-known/openid-configuration", "/jwks"]
        known.requests.clear()
        assert await read(known.url, jwks_url=f"{known.url}/other") == jwks(known.key)
        assert known.requests == ["/other"]


async def test_a_configuration_of_another_issuer_is_refused():
    """And its keys are not read."""
    async with provider() as known:
        known.configuration = {"issuer": "https://evil.example"}
        assert await unread(known.url) == "invalid"
        assert known.requests == ["/.well-known/openid-configuration"]


async def test_addresses_in_this_network_need_permission():
    """The issuer's own, and one that it names (server-side request forgery)."""
    async with provider() as known:
        assert await unread(known.url, allow_private_addresses=False) == "refused"
        assert known.requests == []
        known.configuration = {"jwks_uri": "http://169.254.169.254/latest/meta-data"}
        assert await unread(known.url) == "refused"


async def test_a_redirect_is_not_followed():
    """It could lead anywhere."""
    async with provider() as known, raw_server(answer(b"", status="302 Found", Location=f"{known.url}/jwks")) as door:
        assert await unread(door.url, jwks_url=f"{door.url}/jwks") == "status"
        assert known.requests == []


async def test_a_slow_issuer_is_given_up():
    """However slowly it begins, or goes on."""
    async with provider() as known:
        known.may_answer.clear()
        assert await unread(known.url, 0.1) == "timeout"
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{") as short:
        assert await unread(short.url, jwks_url=short.url) == "unreachable"


async def test_a_large_answer_is_not_read_to_its_end():
    """Whatever length it states."""
    async with provider() as known:
        known.body = b" " * 10_000
        assert await unread(known.url, max_bytes=9_999) == "too_large"
        assert await read(known.url, max_bytes=10_000) == known.body


@pytest.mark.parametrize("reply", [b"", b"\x00\xff", answer(b"no", status="503 No")])
async def test_anything_else_is_no_key(reply: bytes):
    """A server that is not an issuer."""
    async with raw_server(reply) as server:
        assert await unread(server.url, jwks_url=server.url) in {"unreachable", "status"}
    assert await unread(server.url, jwks_url=server.url) == "unreachable"


async def test_a_name_that_resolves_to_a_private_address_is_refused():
    """The address decides, not the name."""
    resolver = FakeResolver(["10.0.0.1"])
    async with IssuerClient(IssuerClientSettings(), resolver=resolver) as reader:
        with pytest.raises(KeysUnread, match="address"):
            await reader.read(KeyLocation(issuer="https://id.example.com"))


async def redeem(url: str, where: str, **more: Any) -> tuple[int, bytes]:
    location = KeyLocation(issuer=where, **({"allow_private_addresses": True} | more))
    async with IssuerClient(IssuerClientSettings(total_seconds=5.0)) as client:
        return await client.redeem(location, url, CodeExchange(b"code=x", "Basic secret"))


async def test_code_is_exchanged_with_the_secret():
    """As a form. The answer is returned as it is, an error too."""
    async with provider() as known:
        known.codes["x"] = {"code_challenge": "other"}
        status, body = await redeem(f"{known.url}/token", known.url)
        assert (status, b"invalid_grant" in body) == (400, True)
        assert known.redeemed[0][0] == "Basic secret"
        with pytest.raises(KeysUnread):
            await redeem(f"{known.url}/token", known.url, max_bytes=4)
        with pytest.raises(KeysUnread) as caught:
            await redeem(f"{known.url}/token", known.url, allow_private_addresses=False)
        assert caught.value.outcome == "refused"


async def test_secret_is_not_sent_on_after_a_redirect():
    async with provider() as known:
        moved = answer(b"", status="307 Temporary Redirect", Location=f"{known.url}/token")
        async with raw_server(moved) as door:
            assert (await redeem(f"{door.url}/token", door.url))[0] == 307
        assert known.redeemed == []
