"""Tokens and their accounts."""

from typing import Any

from gateway.simulator.problems import WRONG_TOKEN, unauthenticated
from gateway.simulator.settings import DEFAULT_ACCOUNT, DEFAULT_TOKEN


class Accounts:
    """Maps tokens to accounts. Without a list, any token of the form `r8_…` belongs to the default account."""

    def __init__(self, tokens: tuple[str, ...] | None) -> None:
        self._accounts: dict[str, str] | None = None
        if tokens is not None:
            pairs = (entry.partition("=") for entry in tokens)
            self._accounts = {token: account or DEFAULT_ACCOUNT for token, _, account in pairs}
        self.token = next(iter(self._accounts), "") if self._accounts is not None else DEFAULT_TOKEN

    def authenticate(self, header: str | None) -> str:
        """Return the account of an Authorization header (`Bearer` or the older `Token`), or raise the recorded 401."""
        scheme, _, token = (header or "").strip().partition(" ")
        token = token.strip()
        if not token:
            raise unauthenticated()
        if scheme.lower() not in {"bearer", "token"}:
            raise unauthenticated(WRONG_TOKEN)
        if self._accounts is None:
            if not (token.startswith("r8_") and len(token) > 3):
                raise unauthenticated(WRONG_TOKEN)
            return DEFAULT_ACCOUNT
        account = self._accounts.get(token)
        if account is None:
            raise unauthenticated(WRONG_TOKEN)
        return account


def describe(account: str) -> dict[str, Any]:
    """Return an account in the format of the API."""
    return {
        "type": "organization",
        "username": account,
        "name": account.replace("-", " ").title(),
        "github_url": f"https://github.com/{account}",
        "avatar_url": f"https://github.com/{account}.png",
    }
