"""Keys and browser tokens that a test issues."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from gateway.access.rules.api_keys import new_key
from gateway.domain.records import Key
from tests.support.audit import BY_TEST
from tests.support.http_calls import Reply, ask
from tests.support.secret_scanner import SecretScanner
from tests.support.stack import Stack


@dataclass
class Issuer:
    """Writes keys into the store from beside the gateway, as the command line does."""

    stack: Stack
    secret_scanner: SecretScanner
    store: Any

    async def issue(self, team: str = "alpha", **more: Any) -> tuple[str, str]:
        minted = new_key(secrets.token_bytes)
        self.secret_scanner.add("an issued key", minted.key)
        record = Key(id=minted.id, team=team, name=minted.id, sha256=minted.sha256, created_at=time.time(), **more)
        await self.store.add_key(record, actor=BY_TEST)
        return minted.id, minted.key


async def mint(stack: Stack, key: str = "alpha", **wanted: Any) -> Reply:
    return await ask(stack, "POST", "/gateway/tokens", key=key, json={"ttl_seconds": 60} | wanted)
