"""What a config may say, and is probably not meant to."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config.model import Config
from gateway.config.problems import Problem
from gateway.config.teams import LIMIT_NAMES, Limits, Team
from gateway.config.values import is_loopback
from gateway.domain.scopes import Scope
from gateway.outputs.rules.outputs import LINKS_DIE_SECONDS

_SHORT_KEY = 24
_MIGHTY = (Scope.ADMIN, Scope.ACCOUNT, Scope.MANAGE, Scope.DEPLOY, Scope.TRAIN, Scope.TOKENS)


def warnings(config: Config, now: float) -> list[Problem]:
    """Return what is allowed but doubtful, in the order of the sections."""
    return [
        *_of_server(config),
        *_of_secrets(config),
        *_of_memory(config),
        *_of_webhooks(config),
        *_of_teams(config, now),
    ]


def _of_server(config: Config) -> Iterator[Problem]:
    server, upstream = config.server, config.upstream
    if server.public_url and server.public_url.startswith("http:") and not _is_local(server.public_url):
        yield Problem(
            "server.public_url",
            "is plain http: keys travel readable, and Replicate's clients hand out files only for https links, so that "
            "outputs at the gateway arrive as plain strings",
        )
    if not server.public_url and not is_loopback(server.host):
        yield Problem(
            "server.public_url",
            "not given: links follow each request's Host, webhooks carry the listener's address, and ends are learned "
            "by polling alone",
        )
    if any(network.prefixlen == 0 for network in server.trusted_proxies):
        yield Problem("server.trusted_proxies", "trusts every address: any caller can say where it comes from")
    if upstream.base_url.startswith("http:") and not _is_local(upstream.base_url):
        yield Problem("upstream.base_url", "is plain http: the account's token travels readable")


def _of_secrets(config: Config) -> Iterator[Problem]:
    for place, path in (("upstream", config.upstream.token_file), ("ops", config.ops.token_file)):
        if path is not None and (mode := _mode(path)) is not None and mode & 0o004:
            yield Problem(
                f"{place}.token_file", f"can be read by everybody on this machine; mend it by: chmod 600 {path}"
            )
    for index, team in enumerate(config.teams):
        for number, key in enumerate(team.keys):
            if key.value is not None and len(key.value.get_secret_value()) < _SHORT_KEY:
                yield Problem(
                    f"teams[{index}].keys[{number}].key_env",
                    f"holds a key of less than {_SHORT_KEY} characters, which can be guessed; "
                    f"make one by: gateway keys create {team.name}",
                )


def _of_memory(config: Config) -> Iterator[Problem]:
    outputs, cache = config.outputs, config.cache
    if outputs.url is not None and outputs.persist != "off" and cache.ttl_seconds > outputs.ttl_seconds:
        yield Problem("outputs.ttl_seconds", "is shorter than cache.ttl_seconds: later hits would link to nothing")
    if outputs.url is not None and outputs.persist != "off":
        yield from _of_copies(config)
    if cache.share == "all" and len(config.teams) > 1:
        yield Problem("cache.share", '"all" lets a team learn from its hits what others have run')


def _of_webhooks(config: Config) -> Iterator[Problem]:
    if config.webhooks.allow_private_addresses:
        yield Problem(
            "webhooks.allow_private_addresses", "lets whoever has a key have requests sent to services of your network"
        )
    if config.webhooks.allow_http:
        yield Problem("webhooks.allow_http", "lets inputs and outputs travel readable")


def _of_copies(config: Config) -> Iterator[Problem]:
    if (config.server.public_url or "").startswith("http:"):
        yield Problem(
            "outputs.url",
            "links of copies will be plain http, as server.public_url is, and Replicate's clients make files of https "
            "links only: from hits they will hand out strings",
        )
    if config.outputs.persist == "all" and config.store.retain_data_seconds <= LINKS_DIE_SECONDS:
        yield Problem(
            "store.retain_data_seconds",
            'lets outputs go when upstream does: "all" copies them for nothing, but for results that are shared',
        )


def _of_teams(config: Config, now: float) -> Iterator[Problem]:
    if not config.teams:
        yield Problem("teams", "there are none: every request will be refused (add a [[teams]])")
    for index, team in enumerate(config.teams):
        yield from _of_team(team, f"teams[{index}]", now)


def _of_team(team: Team, path: str, now: float) -> Iterator[Problem]:
    yield from _of_limits(team, path)
    if "*" in team.origins:
        yield Problem(f"{path}.origins", "* lets any page call with a key of this team")
    for number, key in enumerate(team.keys):
        where = f"{path}.keys[{number}]"
        yield from _of_limits(key, where)
        if key.expires_at is not None and key.expires_at <= now:
            yield Problem(f"{where}.expires", "has passed: the key is refused")
        for name in LIMIT_NAMES:
            mine, around = getattr(key, name), getattr(team, name)
            if mine is not None and around is not None and mine > around and name != "burst":
                yield Problem(f"{where}.{name}", f"{mine} is above the team's {around}, which counts first")
        if key.origins is None:
            continue
        if key.per_address is None and team.per_address is None:
            yield Problem(
                f"{where}.per_address",
                "not given: the key is bound to origins, so it is for pages, and any visitor can use up its limits",
            )
        mighty = [scope for scope in key.scopes or team.scopes if scope in _MIGHTY]
        if mighty:
            yield Problem(f"{where}.scopes", f"{', '.join(mighty)}: more than a key in a public page should have")


def _of_limits(limits: Limits, path: str) -> Iterator[Problem]:
    if limits.burst is not None and limits.requests_per_minute is None and limits.predictions_per_minute is None:
        yield Problem(f"{path}.burst", "has no effect without requests_per_minute or predictions_per_minute")


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None
