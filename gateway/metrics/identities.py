"""Metrics of external identities."""

from gateway.metrics import catalogue
from gateway.metrics.registry import Registry


class IdentityMetrics(Registry):
    """Observer of the tokens and keys of issuers."""

    def issuer_keys_read(self, issuer: str, outcome: str) -> None:
        """Count an attempt to read the keys of an issuer."""
        self.counters[catalogue.ISSUER_KEY_READS][issuer, outcome].value += 1

    def token_refused(self, reason: str) -> None:
        """Count a refused token."""
        self.counters[catalogue.ISSUER_TOKENS_REFUSED][(reason,)].value += 1

    def signed_in(self, issuer: str, outcome: str) -> None:
        """Count a sign-in to the console that ended."""
        self.counters[catalogue.CONSOLE_SIGN_INS][issuer, outcome].value += 1
