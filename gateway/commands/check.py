"""`gateway check`: validate a config, summarize it, and probe a running gateway."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import os
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import click

from gateway.commands.common import (
    CONFIG_OPTION,
    config_file,
    examples,
    load_config,
    plain_errors,
    raise_problems,
    run,
)
from gateway.commands.health import OWN_LISTENER, probe_health, probe_url

if TYPE_CHECKING:
    from gateway.config import Config, Team
    from gateway.config.teams import RunLimits

_DEADLINE_SECONDS: Final = 10
_MOST_BYTES: Final = 65_536
_LONGEST_SILENCE: Final = 600  # limit of the gateway's probe stream
_MIB: Final = 1024 * 1024
_CONNECTIONS: Final = 10  # of a process to PostgreSQL: see docs/postgresql.md


class Finding(NamedTuple):
    """Result of one check, with a sentence for the output. `path` is the setting to change, if there is one."""

    is_ok: bool
    text: str
    path: str = ""


@click.command(
    epilog=examples(
        "gateway check --upstream",
        "gateway check --stream https://gateway.example.com --seconds 120",
        "gateway check --origin https://app.example.com",
    )
)
@CONFIG_OPTION
@click.option(
    "--upstream", is_flag=True, help="Also check the token and the aliases at Replicate, and open the output store."
)
@click.option(
    "--stream",
    "stream_url",
    metavar="URL",
    help="Instead: test whether event streams arrive intact from a gateway at this public URL. Free of charge.",
)
@click.option(
    "--seconds",
    "silence",
    type=click.IntRange(1, _LONGEST_SILENCE),
    metavar="N",
    help="With --stream: also keep a stream idle for N seconds, to find time-outs.",
)
@click.option(
    "--health",
    is_flag=False,
    flag_value=OWN_LISTENER,
    metavar="[URL]",
    help="Instead: probe a running gateway at this URL. Default: /healthz of the listener in the config.",
)
@click.option(
    "--origin",
    "page",
    metavar="URL",
    help="Instead: say which teams a web page at this URL may call as, and if none, why.",
)
def check(
    config_path: Path | None,
    *,
    upstream: bool,
    stream_url: str | None,
    silence: int | None,
    health: str | None,
    page: str | None,
) -> None:
    """Validate the config and report every problem.

    Each problem has its line in the file and a fix. A valid config is summarized, with warnings about settings that are
    probably a mistake. The store is neither created nor changed.

    --stream needs no config. It tests the path between the gateway and this machine, reports buffering, compression,
    caching, rewriting and truncation of event streams, and says how to fix each.
    """
    if health is not None:
        with plain_errors():
            probe_health(probe_url(load_config(config_path)) if health == OWN_LISTENER else health)
        return None
    if silence is not None and stream_url is None:
        raise click.UsageError("--seconds requires --stream.")
    if stream_url is not None:
        if upstream:
            raise click.UsageError("--stream and --upstream cannot be combined.")
        return check_stream_path(stream_url, silence)
    if page is not None:
        return check_origin(config_path, page)
    check_config(config_path, upstream=upstream)
    return None


def check_origin(config_path: Path | None, page: str) -> None:
    """Print what a page may use. Exit with 1 if nothing."""
    with plain_errors():
        from gateway.commands import origin_check
        from gateway.config import ConfigError, load_with_places

        origin = origin_check.origin_of(page)
        try:
            config, places, _ = load_with_places(config_file(config_path), os.environ, serving=False)
        except ConfigError as error:
            raise_problems(error.problems)
        lines, is_allowed = origin_check.explain(config, places, origin)
        for line in lines:
            click.echo(line, err=not is_allowed)
        if not is_allowed:
            raise click.exceptions.Exit(1)


def check_stream_path(url: str, silence: int | None) -> None:
    """Print how event streams arrive from a gateway. Exit with 1 if they are broken."""
    with plain_errors():
        from gateway import logs
        from gateway.commands import stream_check
        from gateway.streams.rules.probe_findings import Level

        # The findings cover what the SSE client logs.
        logs.configure("console", "critical")
        findings = run(stream_check.check_stream(url, silence))
        for line, is_ok in stream_check.lines(findings):
            click.echo(line, err=not is_ok)
        if any(finding.level is Level.BAD for finding in findings):
            raise click.exceptions.Exit(1)
        click.echo("ok")


def check_config(config_path: Path | None, *, upstream: bool) -> None:
    """Print the problems of the config, or its summary. Exit with 1 on a problem."""
    with plain_errors():
        from gateway.config import ConfigError, Problem, load_with_places, warnings
        from gateway.logs import redact, register_secret

        try:
            config, places, notes = load_with_places(config_file(config_path), os.environ, serving=True)
        except ConfigError as error:
            raise_problems(error.problems)
        for secret in config.secret_values():
            register_secret(secret)
        findings = run(check_services(config) if upstream else check_urls(config))
        for line in summary(config):
            click.echo(redact(line))
        for finding in findings:
            problem = places.locate(Problem(finding.path, finding.text))
            click.echo(redact(str(problem)), err=not finding.is_ok)
        found = warnings(config, time.time())
        if upstream and config.aliases:
            from gateway.commands.alias_check import check_aliases

            known = {warning.path for warning in found}
            found += [warning for warning in run(check_aliases(config)) if warning.path not in known]
        for warning in (*notes, *found):
            click.echo(redact(f"warning: {places.locate(warning)}"), err=True)
        if not all(finding.is_ok for finding in findings):
            raise click.exceptions.Exit(1)
        click.echo("ok")


def summary(config: "Config") -> Iterator[str]:
    """Yield the lines that summarize a valid config."""
    server, ops = config.server, config.ops
    links = f"links use {server.public_url}" if server.public_url else "links use the request's Host"
    yield f"listens    {_listener(server.host, server.port)} ({links})"
    yield f"operators  {_listener(ops.host, ops.port)} ({'token required' if ops.token else 'no token, loopback only'})"
    if server.workers > 1:
        yield f"workers    {server.workers} processes; bounds are for each, so together {', '.join(_products(config))}"
    yield (
        f"upstream   {urlsplit(config.upstream.base_url).netloc} ({config.upstream.creates_per_minute} creates, "
        f"{config.upstream.requests_per_minute} other calls per minute)"
    )
    yield f"outputs    {config.outputs.url if config.outputs.url and config.outputs.persist != 'off' else 'not copied'}"
    for alias in config.aliases:
        teams = f" (team {', '.join(alias.teams)})" if alias.teams else ""
        yield f"alias      {alias.name}{teams}: {alias.target}"
    for team in config.teams:
        yield f"team       {team.name}"
        yield from (f"  {name:<9}{value}" for name, value in _team(team))
    for issuer in config.issuers:
        uses = [*issuer.all_teams, *(["the console"] if issuer.console is not None else [])]
        yield f"issuer     {issuer.name} ({issuer.issuer}), for {', '.join(uses)}"


def _products(config: "Config") -> Iterator[str]:
    """Yield what all workers may use together."""
    workers = config.server.workers
    for name in ("cache.memory_bytes", "cache.followed_bytes", "limits.max_bodies_bytes", "limits.max_responses_bytes"):
        section, _, key = name.partition(".")
        yield f"{name} {workers * getattr(getattr(config, section), key) / _MIB:.0f} MiB"
    yield f"{workers * _CONNECTIONS} connections to the database"


def _listener(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port or '(a free port)'}"


def _team(team: "Team") -> "Iterator[tuple[str, str]]":
    """Yield what a team may do, each part with its name."""
    yield "scopes", ", ".join(team.scopes)
    yield "models", "all" if team.models is None else ", ".join(team.models)
    if team.origins:
        yield "origins", ", ".join(team.origins)
    yield "limits", ", ".join(_limits(team)) or "none"
    for name, limits in (("user", team.per_user), ("address", team.per_address)):
        if limits is not None and (given := _limits(limits)):
            yield "limits", f"for each {name}: {', '.join(given)}"
    for name, of_tag in team.per_tag.items():
        yield "limits", f"for tag {name}: {', '.join(_limits(of_tag)) or 'none'}"
    yield "keys", f"in the config: {', '.join(key.name for key in team.keys) or 'none'}"


def _limits(limits: "RunLimits") -> list[str]:
    from gateway.config import LIMIT_NAMES

    # Decimal, because a float may be formatted as "1e+06".
    given = [(name, getattr(limits, name, None)) for name in LIMIT_NAMES]
    return [f"{name} {Decimal(str(value)).normalize():f}" for name, value in given if value is not None]


async def check_urls(config: "Config") -> list[Finding]:
    """Check the store and the URL of the output store. Create and change nothing."""
    from gateway.store.objects.urls import open_output_store

    findings = [await check_store(config)]
    try:
        if config.outputs.url is not None:
            open_output_store(config.outputs.url)
    except ValueError as problem:
        findings.append(Finding(is_ok=False, text=str(problem), path="outputs.url"))
    return findings


async def check_services(config: "Config") -> list[Finding]:
    """Check the token at Replicate, the store, the keys of issuers and the output store."""
    findings = [await check_upstream(config), await check_store(config), *await check_issuers(config)]
    return [*findings, await check_outputs(config.outputs.url)] if config.outputs.url is not None else findings


async def check_upstream(config: "Config") -> Finding:
    """Call `GET /account` with the token, without following redirects or using a proxy."""
    import aiohttp

    upstream = config.upstream
    host = urlsplit(upstream.base_url).netloc
    headers = {"Authorization": f"Bearer {upstream.token.get_secret_value()}"}
    timeout = aiohttp.ClientTimeout(total=_DEADLINE_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(f"{upstream.base_url}/account", headers=headers, allow_redirects=False) as answer,
        ):
            status, body = answer.status, await answer.content.read(_MOST_BYTES)
    except TimeoutError:
        return Finding(is_ok=False, text=f"upstream: {host} did not respond within {_DEADLINE_SECONDS} seconds")
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        return Finding(is_ok=False, text=f"upstream: {host} cannot be reached: {problem or type(problem).__name__}")
    return _read_account(host, status, body)


def _read_account(host: str, status: int, body: bytes) -> Finding:
    import msgspec

    if status in {401, 403}:
        return Finding(is_ok=False, text=f"upstream: {host} refused the token ({status})")
    if status in range(300, 400):
        return Finding(
            is_ok=False, text=f"upstream: {host} redirects ({status}); the token is not sent to another host"
        )
    if status != 200:
        return Finding(is_ok=False, text=f"upstream: {host} responded with {status} instead of an account")
    try:
        account = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return Finding(is_ok=False, text=f"upstream: {host} did not return an account: check base_url")
    kind, name = account.get("type", "account"), account.get("username")
    if not isinstance(name, str):
        return Finding(is_ok=False, text=f"upstream: {host} did not return an account: check base_url")
    return Finding(is_ok=True, text=f"account    {kind} {name[:100]!r} at {host}")


async def check_issuers(config: "Config") -> list[Finding]:
    """Read the keys of every issuer, and where people sign in, as the gateway does."""
    if not config.issuers:
        return []
    from gateway.access.ports import KeysUnread
    from gateway.access.rules import discovery, json_web_keys
    from gateway.assembly.settings import issuer_settings
    from gateway.upstream.issuers import IssuerClient, IssuerClientSettings

    findings = []
    async with IssuerClient(IssuerClientSettings()) as reader:
        for number, issuer in enumerate(issuer_settings(config).issuers):
            path = f"issuers[{number}].{'issuer' if issuer.keys.jwks_url is None else 'jwks_url'}"
            try:
                found = json_web_keys.parse(await reader.read(issuer.keys), issuer.keys.max_keys).keys
            except (KeysUnread, ValueError) as problem:
                findings.append(Finding(is_ok=False, text=f"its keys cannot be read: {problem}", path=path))
                continue
            usable = sorted({name for key in found for name in key.algorithms} & issuer.algorithms)
            if usable:
                text = f"keys       of {issuer.name}: {len(found)}, for {', '.join(usable)}"
                findings.append(Finding(is_ok=True, text=text))
            else:
                findings.append(Finding(is_ok=False, text="none of its keys is for one of algorithms", path=path))
            if issuer.console is None:
                continue
            try:
                endpoints = discovery.endpoints_in(await reader.configuration(issuer.keys), issuer.keys.issuer)
            except (KeysUnread, ValueError) as problem:
                text = f"its OpenID configuration cannot be used: {problem}"
                findings.append(Finding(is_ok=False, text=text, path=f"issuers[{number}].console"))
            else:
                where = urlsplit(endpoints.authorization).netloc
                findings.append(Finding(is_ok=True, text=f"sign-in    at {where}, for the console"))
    return findings


async def check_store(config: "Config") -> Finding:
    """Say whether the store exists and could be opened. Create and change nothing."""
    import asyncio

    from gateway.errors import StoreUnavailable
    from gateway.store.urls import open_store

    url = config.store.url
    try:
        store = await asyncio.to_thread(open_store, *config.store.address)
        exists = await store.inspect()
    except ValueError as problem:
        return Finding(is_ok=False, text=str(problem), path="store.url")
    except StoreUnavailable as problem:
        return Finding(is_ok=False, text=problem.detail, path="store.url")
    state = "exists" if exists else "does not exist yet; `gateway serve` creates it"
    return Finding(is_ok=True, text=f"store      {url} ({state})")


async def check_outputs(url: str) -> Finding:
    """Open the output store. This creates the folder, or a marker object in the bucket."""
    from gateway.errors import StoreUnavailable
    from gateway.store.objects.urls import open_output_store

    try:
        store = open_output_store(url)
        await store.open()
        await store.close()
    except (ValueError, StoreUnavailable) as problem:
        return Finding(is_ok=False, text=f"outputs: {problem}")
    return Finding(is_ok=True, text=f"outputs    {url} is writable")
