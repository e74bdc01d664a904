"""Warnings about settings that are valid but probably a mistake."""

import os
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from gateway.config import issuer_checks
from gateway.config.aliases import warn_of_aliases
from gateway.config.issuers import Issuer
from gateway.config.model import Config
from gateway.config.problems import Problem, spell
from gateway.config.public_suffixes import is_public_suffix
from gateway.config.teams import LIMIT_NAMES, RunLimits, Team, TeamKey, TeamLimits
from gateway.config.values import is_loopback, is_postgres
from gateway.domain.scopes import Scope
from gateway.outputs.rules.outputs import LINKS_DIE_SECONDS

_SHORT_KEY = 24
_ACCOUNT_RATES = {"creates_per_minute": 600, "requests_per_minute": 3000}
"""Replicate's limits of an account: docs/replicate-api.md."""
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
_CHATS = {"hooks.slack.com": "slack", "logic.azure.com": "teams", "api.powerplatform.com": "teams"}
"""Hosts whose webhooks take one form of budget alerts only."""
_Wider = tuple[TeamLimits, str]
"""Limits around others, and whose they are."""
_POWERFUL = (Scope.ADMIN, Scope.ACCOUNT, Scope.MANAGE, Scope.DEPLOY, Scope.TRAIN, Scope.TOKENS)


def warnings(config: Config, now: float) -> list[Problem]:
    """Return the warnings in the order of the sections."""
    return [
        *_of_server(config),
        *_of_upstream(config),
        *_of_secrets(config),
        *_of_sizes(config),
        *_of_store(config),
        *_of_storage(config),
        *_of_transfers(config),
        *_of_prices(config),
        *_of_webhooks(config),
        *warn_of_aliases(config),
        *_of_teams(config, now),
        *_of_issuers(config),
        *_of_rates(config),
        *_of_alerts(config),
    ]


def _of_server(config: Config) -> Iterator[Problem]:
    server = config.server
    if server.public_url and server.public_url.startswith("http:") and not _is_local(server.public_url):
        yield Problem(
            "server.public_url",
            "is plain http: keys are sent unencrypted, and Replicate's clients return file objects only for https "
            "links, so outputs stored by the gateway arrive as strings",
        )
    if not server.public_url and not is_loopback(server.host):
        yield Problem(
            "server.public_url",
            "is not set: links use the Host of each request, webhooks contain the listener's address, and completions "
            "are found by polling only",
        )
    if any(network.prefixlen == 0 for network in server.trusted_proxies):
        yield Problem("server.trusted_proxies", "trusts every address: any caller can forge its own address")
    if (server.public_url or "").startswith("https:") and not server.trusted_proxies:
        yield Problem(
            "server.public_url",
            "is https, so a proxy is in front, and trusted_proxies is empty: every caller has the proxy's address, "
            "and all share the limits per_address",
        )


def _of_upstream(config: Config) -> Iterator[Problem]:
    upstream = config.upstream
    if upstream.base_url.startswith("http:") and not _is_local(upstream.base_url):
        yield Problem("upstream.base_url", "is plain http: the account's token is sent unencrypted")
    for name, usual in _ACCOUNT_RATES.items():
        if _is_replicate(upstream.base_url) and (given := getattr(upstream, name)) > usual:
            yield Problem(
                f"upstream.{name}",
                f"{given} is above the {usual} a minute that Replicate allows an account, unless it raised yours: what "
                "is above its limit gets 429",
            )


def _of_alerts(config: Config) -> Iterator[Problem]:
    for index, team in enumerate(config.teams):
        host = urlsplit(team.budget_webhook or "").hostname or ""
        for known, form in _CHATS.items():
            if (host == known or host.endswith(f".{known}")) and team.budget_webhook_format != form:
                yield Problem(
                    f"teams[{index}].budget_webhook_format",
                    f'is "{team.budget_webhook_format}", and {known} accepts messages in the form "{form}" only',
                )


def _of_rates(config: Config) -> Iterator[Problem]:
    account = config.upstream.creates_per_minute
    for index, team in enumerate(config.teams):
        mine = team.predictions_per_minute
        if mine is not None and mine > account:
            yield Problem(
                f"teams[{index}].predictions_per_minute",
                f"{mine} is above upstream.creates_per_minute ({account}), which is reached first",
            )


def in_container() -> bool:
    """Say whether this process runs in a container, as far as one can see from inside."""
    if os.environ.get("KUBERNETES_SERVICE_HOST") or any(Path(mark).exists() for mark in _CONTAINER_MARKS):
        return True
    try:
        groups = Path("/proc/1/cgroup").read_text()
    except (OSError, UnicodeDecodeError):
        return False
    return any(word in groups for word in ("docker", "kubepods", "containerd", "libpod"))


def unreachable_in_container(config: Config) -> Problem | None:
    """Return a warning about a public listener that nothing outside of this container can reach.

    A free port (0) cannot be published, so it is meant for callers inside.
    """
    if not is_loopback(config.server.host) or config.server.port == 0:
        return None
    return Problem(
        "server.host",
        f"{config.server.host} cannot be reached from outside of this container: set GATEWAY__SERVER__HOST=0.0.0.0",
    )


def _of_secrets(config: Config) -> Iterator[Problem]:
    for place, path in (("upstream", config.upstream.token_file), ("ops", config.ops.token_file)):
        if path is not None and (mode := _mode(path)) is not None and mode & 0o004:
            yield Problem(
                f"{place}.token_file", f"is readable by every user of this machine; fix it with: chmod 600 {path}"
            )
    for index, team in enumerate(config.teams):
        for number, key in enumerate(team.keys):
            if key.value is not None and len(key.value.get_secret_value()) < _SHORT_KEY:
                yield Problem(
                    f"teams[{index}].keys[{number}].key_env",
                    f"contains a key of fewer than {_SHORT_KEY} characters, which can be guessed; "
                    f"create one with: gateway keys create {team.name}",
                )


def _of_storage(config: Config) -> Iterator[Problem]:
    outputs, cache = config.outputs, config.cache
    if outputs.url is not None and outputs.persist != "off" and cache.ttl_seconds > outputs.ttl_seconds:
        yield Problem(
            "outputs.ttl_seconds",
            "is shorter than cache.ttl_seconds: copies would expire before the cached results that link to them",
        )
    if outputs.url is not None and outputs.persist != "off":
        yield from _of_copies(config)
    if cache.share == "all" and len(config.teams) > 1:
        yield Problem("cache.share", '"all" lets a team infer from its cache hits what other teams have run')


def _of_sizes(config: Config) -> Iterator[Problem]:
    if config.limits.max_bodies_bytes < config.server.max_body_bytes:
        yield Problem(
            "limits.max_bodies_bytes",
            "is smaller than server.max_body_bytes: larger bodies are refused with 503, however often they are sent",
        )


def _of_transfers(config: Config) -> Iterator[Problem]:
    given = config.transfers
    total = min(given.max_uploads, given.max_downloads)
    if given.max_per_team >= total > 1:
        yield Problem(
            "transfers.max_per_team",
            f"is {given.max_per_team}, and all teams together have {total}: one team can keep the others from "
            "uploading or downloading files",
        )
    if given.max_per_public_key >= given.max_per_team > 1:
        yield Problem(
            "transfers.max_per_public_key",
            f"is {given.max_per_public_key}, and a team has {given.max_per_team}: one visitor of a page can keep "
            "the team's servers from uploading or downloading files",
        )


def _of_prices(config: Config) -> Iterator[Problem]:
    for index, price in enumerate(config.prices.models):
        if price.usd_per_output_token is not None and price.usd_per_input_token is None:
            yield Problem(
                f"prices.models[{index}].usd_per_output_token",
                "is given without usd_per_input_token, so input is free (set it to 0 if that is right)",
            )


def _of_webhooks(config: Config) -> Iterator[Problem]:
    if config.webhooks.allow_private_addresses:
        yield Problem(
            "webhooks.allow_private_addresses",
            "allows every caller to have the gateway send requests to your private network",
        )
    if config.webhooks.allow_http:
        yield Problem("webhooks.allow_http", "lets inputs and outputs be sent unencrypted")
    if config.webhooks.max_queued_total < config.webhooks.max_queued:
        yield Problem(
            "webhooks.max_queued_total",
            f"{config.webhooks.max_queued_total} is below max_queued ({config.webhooks.max_queued}): one team can take "
            "the places of all others",
        )


def _of_copies(config: Config) -> Iterator[Problem]:
    if (config.server.public_url or "").startswith("http:"):
        yield Problem(
            "outputs.url",
            "links to copies are plain http because server.public_url is; Replicate's clients return file objects only "
            "for https links, so outputs of cache hits arrive as strings",
        )
    if config.outputs.persist == "all" and config.store.retain_data_seconds <= LINKS_DIE_SECONDS:
        yield Problem(
            "store.retain_data_seconds",
            'expires with upstream\'s own files: with persist = "all", only copies of shared results live longer',
        )


def _of_store(config: Config) -> Iterator[Problem]:
    store = config.store
    if not is_postgres(store.url):
        for name, value in (("password_env", store.password_env), ("password_file", store.password_file)):
            if value is not None:
                yield Problem(f"store.{name}", "is not used: SQLite has no password")
        if store.listen_url is not None:
            yield Problem("store.listen_url", "is not used: it belongs to a PostgreSQL database behind a pooler")
        return
    for name, url in (("url", store.url), ("listen_url", store.listen_url)):
        if url is not None and not _is_safe_way(url):
            yield Problem(
                f"store.{name}",
                "may be connected to without TLS, or with a server that nobody has verified: add ?sslmode=verify-full",
            )


def _is_safe_way(url: str) -> bool:
    """Say whether a database is on this machine, or its certificate is verified."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    # Without a host libpq takes the local socket. A path as host is the folder of a socket.
    hosts = given.get("host", parts.netloc.rpartition("@")[2]).split(",")
    is_local = all(not host or host.startswith("/") or is_loopback(host.rsplit(":", 1)[0]) for host in hosts)
    return is_local or given.get("sslmode") in ("verify-ca", "verify-full")


def _of_teams(config: Config, now: float) -> Iterator[Problem]:
    if not config.teams:
        yield Problem("teams", "is empty: every request will be refused (add a [[teams]])")
    for index, team in enumerate(config.teams):
        yield from _of_team(team, f"teams[{index}]", now)


def _of_team(team: Team, path: str, now: float) -> Iterator[Problem]:
    yield from _of_limits(team, path)
    yield from _of_each(team, path, (team, "the team's"))
    for name, limits in team.per_tag.items():
        where = f"{path}.per_tag.{spell((name,))}"
        yield from _of_limits(limits, where)
        yield from _above(limits, where, (team, "the team's"))
    if "*" in team.origins:
        yield Problem(f"{path}.origins", "* allows any web page to call with a key of this team")
    yield from _of_patterns(team.origins, path)
    if team.public_sees == "team":
        yield Problem(
            f"{path}.public_sees", '"team" lets every visitor read and cancel predictions and files of the whole team'
        )
    if team.public_webhooks:
        yield Problem(
            f"{path}.public_webhooks",
            "lets every visitor of a page make the gateway send requests to any public address",
        )
    if team.unbound_tokens:
        yield Problem(
            f"{path}.unbound_tokens",
            "lets servers of this team mint browser tokens that also work outside of your pages: whoever copies such a "
            "token can use it from anywhere until it expires",
        )
    for number, key in enumerate(team.keys):
        where = f"{path}.keys[{number}]"
        yield from _of_limits(key, where)
        yield from _of_each(key, where, (key, "the key's"), (team, "the team's"))
        if key.expires_at is not None and key.expires_at <= now:
            yield Problem(f"{where}.expires", "is in the past: the key is refused")
        yield from _above(key, where, (team, "the team's"))
        if key.origins is None:
            continue
        yield from _of_patterns(key.origins, where)
        if key.per_address is None and team.per_address is None:
            yield Problem(
                f"{where}.per_address",
                "is not set: this key is for web pages, and a single visitor can use up its limits",
            )
        powerful = [scope for scope in key.scopes or team.scopes if scope in _POWERFUL]
        if powerful:
            yield Problem(f"{where}.scopes", f"{', '.join(powerful)}: too powerful for a key in a public page")


def _of_issuers(config: Config) -> Iterator[Problem]:
    yield from issuer_checks.warnings(config)
    for index, issuer in enumerate(config.issuers):
        path = f"issuers[{index}]"
        teams = [team for name in issuer.all_teams if (team := config.team(name)) is not None]
        around = (teams[0], "the team's") if len(teams) == 1 else None
        yield from _of_limits(issuer, path)
        yield from _of_each(issuer, path, (issuer, "the issuer's"), *([around] if around else []))
        if around:
            yield from _above(issuer, path, around)
        yield from _of_patterns(() if issuer.is_native else issuer.origins or (), path)
        if issuer.per_user is None and any(team.per_user is None for team in teams):
            yield Problem(f"{path}.per_user", "is not set: a single user can use up the limits of the team")


def _of_patterns(origins: Iterable[str], path: str) -> Iterator[Problem]:
    for origin in origins:
        host = origin.partition("://")[2]
        if host.startswith("*.") and is_public_suffix(host.removeprefix("*.").partition(":")[0]):
            yield Problem(f"{path}.origins", f"{origin} matches the sites of strangers: name your own domain after *.")


def _of_each(holder: Team | TeamKey | Issuer, path: str, *around: _Wider) -> Iterator[Problem]:
    """Yield warnings about the limits of each user and each address of a team or a key."""
    for name, limits in (("per_user", holder.per_user), ("per_address", holder.per_address)):
        if limits is not None:
            yield from _of_limits(limits, f"{path}.{name}")
            of_each = [
                (wider, f"{whose} {name} of")
                for holds, whose in around
                if (wider := getattr(holds, name)) is not None and wider is not limits
            ]
            yield from _above(limits, f"{path}.{name}", *around, *of_each)


def _above(limits: RunLimits, path: str, *around: _Wider) -> Iterator[Problem]:
    """Yield a warning for each limit that can never be reached, because a wider one is lower."""
    for name in LIMIT_NAMES:
        mine = getattr(limits, name, None)
        if mine is None or name == "burst":
            continue
        lower = [
            (theirs, whose) for wider, whose in around if (theirs := getattr(wider, name)) is not None and theirs < mine
        ]
        if lower:
            theirs, whose = min(lower, key=itemgetter(0))
            yield Problem(f"{path}.{name}", f"{mine} is above {whose} {theirs}, which is reached first")
            continue
        # What is allowed in a day, for what is wider in a month.
        for wider, whose in around:
            a_month = getattr(wider, name.replace("_per_day", "_per_month"))
            if a_month is not None and a_month < mine:
                yield Problem(f"{path}.{name}", f"{mine} is above {whose} {a_month} a month, which is reached first")
                break


def _of_limits(limits: RunLimits, path: str) -> Iterator[Problem]:
    for what in ("seconds", "budget_usd"):
        a_day, a_month = getattr(limits, f"{what}_per_day"), getattr(limits, f"{what}_per_month")
        if a_day is not None and a_month is not None and a_month < a_day:
            yield Problem(
                f"{path}.{what}_per_month", f"{a_month} is below {what}_per_day ({a_day}), which has no effect"
            )
    rates = [name for name in ("requests_per_minute", "predictions_per_minute") if hasattr(limits, name)]
    if limits.burst is not None and all(getattr(limits, name) is None for name in rates):
        yield Problem(f"{path}.burst", f"has no effect without {' or '.join(rates)}")


def _is_replicate(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith("replicate.com")


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None
