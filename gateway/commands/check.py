"""`gateway check`: everything that is wrong with a config, and what a sound one means."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import click

from gateway.commands.common import CONFIG_OPTION, load_config, plain_errors, run
from gateway.commands.health import OWN_LISTENER, ask_health, probe_url

if TYPE_CHECKING:
    from gateway.config import Config, Limits, Team

_DEADLINE_SECONDS: Final = 10
_MOST_BYTES: Final = 65_536
_LONGEST_SILENCE: Final = 600  # what the gateway allows: gateway.streams.rules.probe


class Finding(NamedTuple):
    """What was found by asking: whether it is well, and a sentence."""

    is_well: bool
    text: str


@click.command()
@CONFIG_OPTION
@click.option("--upstream", is_flag=True, help="Also ask Replicate whose token it is, and open the stores.")
@click.option(
    "--stream",
    "stream_url",
    metavar="URL",
    help="Instead, ask a gateway that runs, at its public address, whether event streams come through; costs nothing.",
)
@click.option(
    "--seconds",
    "silence",
    type=click.IntRange(1, _LONGEST_SILENCE),
    metavar="N",
    help="With --stream: also hold a stream open for N silent seconds, to find time-outs.",
)
@click.option(
    "--health",
    is_flag=False,
    flag_value=OWN_LISTENER,
    metavar="[URL]",
    help="Only ask a gateway that serves whether it is alive: this URL, else /healthz of the config's listener.",
)
def check(
    config_path: Path | None, *, upstream: bool, stream_url: str | None, silence: int | None, health: str | None
) -> None:
    """Say all that is wrong with the config.

    Every problem is told at once, with its place and how to mend it. A sound config is summed up, and what is allowed
    but doubtful in it is warned of.

    With --stream no config is needed: what is looked at is the way between the gateway and where this runs. It says
    whether something buffers, compresses, caches, changes or cuts event streams, and how to mend that.
    """
    if health is not None:
        with plain_errors():
            ask_health(probe_url(load_config(config_path)) if health == OWN_LISTENER else health)
        return None
    if silence is not None and stream_url is None:
        raise click.UsageError("--seconds goes with --stream.")
    if stream_url is not None:
        if upstream:
            raise click.UsageError("--stream and --upstream look at different things: use one of them.")
        return look_at_stream(stream_url, silence)
    check_config(config_path, upstream=upstream)
    return None


def look_at_stream(url: str, silence: int | None) -> None:
    """Say what becomes of streams on the way from a gateway to here."""
    with plain_errors():
        from gateway import logs
        from gateway.commands import stream_check
        from gateway.streams.rules.probe_findings import Level

        # What its client logs is said in the findings.
        logs.configure("console", "critical")
        findings = run(stream_check.check_stream(url, silence))
        for line, is_well in stream_check.lines(findings):
            click.echo(line, err=not is_well)
        if any(finding.level is Level.BAD for finding in findings):
            raise click.exceptions.Exit(1)
        click.echo("ok")


def check_config(config_path: Path | None, *, upstream: bool) -> None:
    """Say all that is wrong with the config, or what it means."""
    config = load_config(config_path, serving=True)
    with plain_errors():
        from gateway.config import warnings
        from gateway.logs import redact, register_secret

        for secret in config.secret_values():
            register_secret(secret)
        findings = run(ask(config)) if upstream else [store_finding(config)]
        for line in summary(config):
            click.echo(redact(line))
        for finding in findings:
            if finding.text:
                click.echo(redact(finding.text), err=not finding.is_well)
        for warning in warnings(config, time.time()):
            click.echo(redact(f"warning: {warning}"), err=True)
        if not all(finding.is_well for finding in findings):
            raise click.exceptions.Exit(1)
        click.echo("ok")


def summary(config: "Config") -> Iterator[str]:
    """Say what a sound config means, in a line each."""
    server, ops = config.server, config.ops
    links = f"links say {server.public_url}" if server.public_url else "links follow the request's Host"
    yield f"listens    {_listener(server.host, server.port)} ({links})"
    yield f"operators  {_listener(ops.host, ops.port)} ({'with a token' if ops.token else 'no token, loopback only'})"
    yield (
        f"upstream   {urlsplit(config.upstream.base_url).netloc} ({config.upstream.creates_per_minute} creates, "
        f"{config.upstream.requests_per_minute} other calls a minute)"
    )
    yield f"store      {config.store.url}"
    yield f"outputs    {config.outputs.url if config.outputs.url and config.outputs.persist != 'off' else 'not copied'}"
    for team in config.teams:
        yield f"team       {_team(team)}"


def _listener(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port or '(any free port)'}"


def _team(team: "Team") -> str:
    parts = [
        f"scopes {', '.join(team.scopes)}",
        f"models {', '.join(team.models)}" if team.models is not None else "all models",
    ]
    if team.origins:
        parts.append(f"origins {', '.join(team.origins)}")
    parts += _limits(team) or ["no limits"]
    for name, limits in (("user", team.per_user), ("address", team.per_address)):
        if limits is not None and (given := _limits(limits)):
            parts.append(f"each {name} {', '.join(given)}")
    parts.append(f"keys in the config: {', '.join(key.name for key in team.keys) or 'none'}")
    return f"{team.name}: {'; '.join(parts)}"


def _limits(limits: "Limits") -> list[str]:
    from gateway.config import LIMIT_NAMES

    # Through Decimal: a float's own text may be "1e+06".
    given = [(name, getattr(limits, name)) for name in LIMIT_NAMES]
    return [f"{name} {Decimal(str(value)).normalize():f}" for name, value in given if value is not None]


def store_finding(config: "Config") -> Finding:
    """Say whether there are stores for the urls; nothing is opened."""
    from gateway.store.objects.urls import open_output_store
    from gateway.store.urls import open_store

    try:
        open_store(config.store.address.get_secret_value())
    except ValueError as problem:
        return Finding(is_well=False, text=f"store.url: {problem}")
    try:
        if config.outputs.url is not None:
            open_output_store(config.outputs.url)
    except ValueError as problem:
        return Finding(is_well=False, text=f"outputs.url: {problem}")
    return Finding(is_well=True, text="")


async def ask(config: "Config") -> list[Finding]:
    """Ask upstream whose token it is, and open the stores."""
    findings = [await ask_upstream(config), await try_store(config)]
    return [*findings, await try_outputs(config.outputs.url)] if config.outputs.url is not None else findings


async def ask_upstream(config: "Config") -> Finding:
    """Ask `GET /account` with the token. It goes to the configured address only: no redirects, no proxies."""
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
        return Finding(is_well=False, text=f"upstream: {host} did not answer within {_DEADLINE_SECONDS} seconds")
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        return Finding(is_well=False, text=f"upstream: {host} could not be asked: {problem or type(problem).__name__}")
    return _read_account(host, status, body)


def _read_account(host: str, status: int, body: bytes) -> Finding:
    import msgspec

    if status in {401, 403}:
        return Finding(is_well=False, text=f"upstream: {host} refused the token ({status})")
    if status in range(300, 400):
        return Finding(is_well=False, text=f"upstream: {host} sends elsewhere ({status}); the token is not sent on")
    if status != 200:
        return Finding(is_well=False, text=f"upstream: {host} answered {status} where an account was expected")
    try:
        account = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return Finding(is_well=False, text=f"upstream: {host} answered with what is no account: is base_url right?")
    kind, name = account.get("type", "account"), account.get("username")
    if not isinstance(name, str):
        return Finding(is_well=False, text=f"upstream: {host} answered with what is no account: is base_url right?")
    return Finding(is_well=True, text=f"account    {kind} {name[:100]!r} at {host}")


async def try_store(config: "Config") -> Finding:
    """Open the store and see it answer."""
    from gateway.errors import StoreUnavailable
    from gateway.store.urls import open_store

    try:
        store = open_store(config.store.address.get_secret_value())
        await store.open()
        try:
            await store.ping()
        finally:
            await store.close()
    except (ValueError, OSError, StoreUnavailable) as problem:
        return Finding(is_well=False, text=f"store: {problem}")
    return Finding(is_well=True, text=f"store      {config.store.url} answers")


async def try_outputs(url: str) -> Finding:
    """Open the output store, by which its folder or a mark in its bucket is made."""
    from gateway.errors import StoreUnavailable
    from gateway.store.objects.urls import open_output_store

    try:
        store = open_output_store(url)
        await store.open()
        await store.close()
    except (ValueError, StoreUnavailable) as problem:
        return Finding(is_well=False, text=f"outputs: {problem}")
    return Finding(is_well=True, text=f"outputs    {url} can be written")
