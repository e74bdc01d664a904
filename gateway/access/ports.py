"""What access asks of others."""

from typing import Protocol

from gateway.access.rules.issuers import KeyLocation
from gateway.access.rules.sign_in import CodeExchange


class KeysUnread(Exception):
    """An issuer could not be read. `outcome` is one of `gateway.domain.ports.observers.KEY_READS`."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        """A sentence for operators, without text that the issuer controls."""


class KeySource(Protocol):
    """Reads the keys of issuers."""

    async def read(self, where: KeyLocation) -> bytes:
        """Return an issuer's JWKS. Raise `KeysUnread`, within seconds, for any failure."""
        ...


class SignInSource(Protocol):
    """Asks issuers where people sign in, and for what."""

    async def configuration(self, where: KeyLocation) -> bytes:
        """Return an issuer's OpenID configuration. Raise `KeysUnread`, within seconds, for any failure."""
        ...

    async def redeem(self, where: KeyLocation, url: str, request: CodeExchange) -> tuple[int, bytes]:
        """Send a request to an issuer's token endpoint. Return status and body, or raise `KeysUnread`."""
        ...
