"""What access asks of others."""

from typing import Protocol

from gateway.access.rules.issuers import KeyLocation


class KeysUnread(Exception):
    """The keys of an issuer could not be read. `outcome` is one of `gateway.domain.ports.observers.KEY_READS`."""

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
