"""`gateway check --upstream`: can the keys of each issuer be read, and are they of use?"""

from typing import Any

from gateway.commands.check import check_issuers, summary
from tests.support.config_files import made, team
from tests.support.issuers import Provider, jwks, new_key, provider


async def found(issuer: Provider, **more: Any) -> tuple[bool, str, str]:
    table = issuer.config(team="acme", origins="none", **more)
    config = made(teams=[team(name="acme")], issuers=[table])
    assert f"issuer     id ({issuer.url}), for acme" in list(summary(config))
    (finding,) = await check_issuers(config)
    return finding.is_ok, finding.text, finding.path


async def test_keys_are_read_and_named_by_their_use():
    """As the gateway does it, so what works here works there."""
    async with provider() as issuer:
        issuer.body = jwks(new_key("a"), new_key("b", "RS256"))
        assert await found(issuer) == (True, "keys       of id: 2, for ES256, RS256", "")


async def test_what_is_wrong_is_said_at_its_setting():
    """The address, or the list of algorithms."""
    async with provider() as issuer:
        unusable = await found(issuer, algorithms=["RS256"])
        assert unusable == (False, "none of its keys is for one of algorithms", "issuers[0].issuer")
        issuer.body = b"<html>"
        assert (await found(issuer, jwks_url=f"{issuer.url}/jwks"))[::2] == (False, "issuers[0].jwks_url")
        issuer.status = 404
        is_ok, text, path = await found(issuer)
        assert (is_ok, path) == (False, "issuers[0].issuer")
        assert "its keys cannot be read: it responded with 404" in text


async def test_console_needs_endpoints():
    """They are read too, as at the first sign-in."""
    async with provider() as issuer:
        console = {"client_id": "c", "operator_claim": "groups", "operators": ["a"]}
        given = {"issuer": issuer.url, "name": "id", "allow_private_addresses": True, "console": console}
        config = made(issuers=[given])
        assert f"issuer     id ({issuer.url}), for the console" in list(summary(config))
        keys, sign_in = await check_issuers(config)
        assert (keys.is_ok, sign_in.is_ok) == (True, True)
        assert sign_in.text == f"sign-in    at {issuer.url.removeprefix('http://')}, for the console"
        issuer.configuration = {"token_endpoint": "http://evil.example/#x"}
        _, refused = await check_issuers(config)
        assert (refused.is_ok, refused.path) == (False, "issuers[0].console")
        assert "has a user name or a fragment" in refused.text


async def test_without_issuers_nothing_is_read():
    """The extra is not needed then."""
    assert await check_issuers(made()) == []
