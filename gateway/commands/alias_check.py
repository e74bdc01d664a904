"""`gateway check --upstream`: ask Replicate whether aliases hide something and whether their targets exist."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import asyncio
from typing import TYPE_CHECKING, Final

from gateway.config.problems import Problem
from gateway.domain.targets import TargetKind
from gateway.models.rules.aliases import parse_target

if TYPE_CHECKING:
    import aiohttp

    from gateway.config import Config

_DEADLINE_SECONDS: Final = 10
_AT_ONCE: Final = 4
_MOST: Final = 100  # aliases: the account's rate is shared with the gateway


async def check_aliases(config: "Config") -> list[Problem]:
    """Return a warning for each alias that hides a model or a deployment, or whose target does not exist.

    Replicate's other responses, and its silence, are no reason to warn: `check_upstream` reports them.
    """
    import aiohttp

    upstream = config.upstream
    headers = {"Authorization": f"Bearer {upstream.token.get_secret_value()}"}
    timeout = aiohttp.ClientTimeout(total=_DEADLINE_SECONDS)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def status(session: "aiohttp.ClientSession", path: str) -> int | None:
        try:
            async with slots, session.get(f"{upstream.base_url}{path}", allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def check(session: "aiohttp.ClientSession", index: int) -> list[Problem]:
        alias = config.aliases[index]
        kinds = ("models", "deployments")
        found = await asyncio.gather(*(status(session, f"/{kind}/{alias.name}") for kind in kinds))
        warnings = [
            Problem(
                f"aliases[{index}].name",
                f"hides the {kind.removesuffix('s')} of that name at Replicate: every request for {alias.name} runs "
                f"{alias.target}",
            )
            for kind, answer in zip(kinds, found, strict=True)
            if answer == 200
        ]
        if await status(session, _path_of(alias.target)) == 404:
            warnings.append(Problem(f"aliases[{index}].target", f"{alias.target} does not exist at Replicate"))
        return warnings

    async with aiohttp.ClientSession(timeout=timeout, trust_env=False, headers=headers) as session:
        found = await asyncio.gather(*(check(session, index) for index in range(len(config.aliases[:_MOST]))))
    return [warning for warnings in found for warning in warnings]


def _path_of(text: str) -> str:
    target = parse_target(text)
    match target.kind:
        case TargetKind.DEPLOYMENT:
            return f"/deployments/{target.model}"
        case TargetKind.VERSION:
            return f"/models/{target.model}/versions/{target.version}"
        case TargetKind.MODEL:
            return f"/models/{target.model}"
