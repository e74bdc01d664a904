"""Checks across several values: required secrets, and settings that must agree with each other."""

import difflib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from gateway.config import console_checks, issuer_checks
from gateway.config.aliases import compare_aliases, models_outside
from gateway.config.listeners import Ops, Server
from gateway.config.model import Config
from gateway.config.positions import Location
from gateway.config.report import Report
from gateway.config.secret_settings import SecretSettings
from gateway.config.sections import ModelPrice, Store, Upstream
from gateway.config.teams import Team, TeamKey
from gateway.config.values import is_loopback, is_postgres, is_wildcard
from gateway.domain.scopes import origins_outside, scopes_outside
from gateway.money.rules.price_table import HARDWARE

# 16 characters of hex are 64 bits: out of reach for guesses over a network (OWASP ASVS 5.0, 7.2.3, for session ids).
_SHORTEST_OPS_TOKEN = 16


def resolve(config: Config, environ: Mapping[str, str], report: Report, *, serving: bool = True) -> Config:
    """Return the config with the secrets that it names resolved. Report each secret that cannot be read.

    With `serving=False` (commands other than `serve`), a missing secret is no problem.
    """
    secrets = SecretSettings(environ, report, serving=serving)
    teams = []
    for index, team in enumerate(config.teams):
        keys = []
        for number, key in enumerate(team.keys):
            value = secrets.in_variable(("teams", index, "keys", number, "key_env"), key.key_env)
            keys.append(key.with_value(value) if value and not key.sha256 else key)
        teams.append(team.model_copy(update={"keys": tuple(keys)}))
    if serving and config.tracing.enabled and find_spec("opentelemetry") is None:
        report.add(
            ("tracing", "enabled"), "needs the extra otel: pip install 'WHEEL[otel]', or '.[otel]' in a checkout"
        )
    if config.server.workers > 1 and not is_postgres(config.store.url):
        report.add(("server", "workers"), "needs PostgreSQL ([store] url): one process serves from a file of SQLite")
    if serving and is_postgres(config.store.url) and find_spec("psycopg") is None:
        report.add(
            ("store", "url"), "needs the extra postgres: pip install 'WHEEL[postgres]', or '.[postgres]' in a checkout"
        )
    if serving and config.issuers and find_spec("cryptography") is None:
        report.add(("issuers",), "needs the extra oidc: pip install 'WHEEL[oidc]', or '.[oidc]' in a checkout")
    return config.model_copy(
        update={
            "ops": config.ops.with_token(_ops_token(config.ops, report, secrets, serving=serving)),
            "upstream": config.upstream.with_token(_upstream_token(config.upstream, report, secrets) or ""),
            "store": config.store.with_password(_store_password(config.store, secrets)),
            "teams": tuple(teams),
            "issuers": tuple(
                console_checks.with_client_secret(issuer, ("issuers", index), secrets)
                for index, issuer in enumerate(config.issuers)
            ),
        }
    )


def _ops_token(ops: Ops, report: Report, secrets: SecretSettings, *, serving: bool) -> str | None:
    token = secrets.in_file_or_variable(
        ("ops",), "token", name=ops.token_env, path=ops.token_file, is_name_given=ops.token_env is not None
    )
    if serving and token is not None and len(token) < _SHORTEST_OPS_TOKEN:
        message = (
            f"contains a token of fewer than {_SHORTEST_OPS_TOKEN} characters, which can be guessed; "
            "create one with: openssl rand -hex 32"
        )
        report.add(("ops", "token_env" if ops.token_file is None else "token_file"), message)
        return None
    return token


def _upstream_token(upstream: Upstream, report: Report, secrets: SecretSettings) -> str | None:
    if report.is_bad(("upstream", "token_file")):
        return None
    is_name_given = "token_env" in upstream.model_fields_set
    return secrets.in_file_or_variable(
        ("upstream",), "token", name=upstream.token_env, path=upstream.token_file, is_name_given=is_name_given
    )


def _store_password(store: Store, secrets: SecretSettings) -> str | None:
    name, path = store.password_env, store.password_file
    return secrets.in_file_or_variable(("store",), "password", name=name, path=path, is_name_given=name is not None)


def compare(config: Config, report: Report) -> None:
    """Report settings that contradict each other."""
    _compare_listeners(config.server, config.ops, report)
    if config.server.drain_seconds > config.server.shutdown_grace_seconds:
        report.add(
            ("server", "drain_seconds"),
            f"must not exceed shutdown_grace_seconds ({config.server.shutdown_grace_seconds:g})",
            uses=[("server", "shutdown_grace_seconds")],
        )
    if config.server.public_url and f"{config.server.public_url}/v1" == config.upstream.base_url:
        report.add(("upstream", "base_url"), "is the gateway's own public_url: the gateway would call itself")
    if config.upstream.base_url.startswith("http:") and not config.upstream.allow_http:
        _refuse_http(config.upstream, report)
    if config.outputs.url is None and "persist" in config.outputs.model_fields_set and config.outputs.persist != "off":
        report.add(
            ("outputs", "persist"),
            f'"{config.outputs.persist}" requires outputs.url, the place to copy to (for example: outputs)',
            uses=[("outputs", "url")],
        )
    outputs = config.outputs
    if is_postgres(config.store.url) and outputs.url and not outputs.url.startswith("s3:") and not outputs.shared:
        report.add(
            ("outputs", "url"),
            "is a folder, and every node on the database serves copies that other nodes have made: use a bucket "
            "(s3://bucket/prefix), or set outputs.shared = true if all nodes share this folder",
            uses=[("store", "url")],
        )
    _compare_sku(config.prices.default_hardware, ("prices", "default_hardware"), report)
    for index, price in enumerate(config.prices.models):
        _compare_price(price, ("prices", "models", index), report)
    _find_twins(
        ((("teams", index, "name"), team.name) for index, team in enumerate(config.teams)),
        "same name as {first}; names of teams must be unique",
        report,
    )
    for index, team in enumerate(config.teams):
        _compare_team(team, config.aliases_of(team.name), ("teams", index), report)
        _compare_tags(team, config.tags.keys, ("teams", index, "per_tag"), report)
        if (team.budget_webhook or "").startswith("http://") and not config.webhooks.allow_http:
            report.add(
                ("teams", index, "budget_webhook"),
                "expected an https address (or webhooks.allow_http = true)",
                uses=[("webhooks", "allow_http")],
            )
    compare_aliases(config, report)
    _find_twins(
        ((("issuers", index, "name"), issuer.name) for index, issuer in enumerate(config.issuers)),
        "same name as {first}; names of issuers must be unique (give each a name)",
        report,
    )
    issuer_checks.compare(config, report)
    _compare_digests(config, report)


def _compare_listeners(server: Server, ops: Ops, report: Report) -> None:
    same_host = server.host.lower() == ops.host.lower() or is_wildcard(server.host) or is_wildcard(ops.host)
    same_host = same_host or (is_loopback(server.host) and is_loopback(ops.host))
    if server.port == ops.port != 0 and same_host:
        report.add(
            ("ops", "port"),
            f"{ops.port} is also the port of [server]; choose another (for example: {ops.port % 65535 + 1})",
            uses=[("ops", "host"), ("server", "port"), ("server", "host")],
        )
    if not is_loopback(ops.host) and ops.token_env is None and ops.token_file is None:
        report.add(
            ("ops", "token_env"),
            f"is missing: {ops.host} is reachable from other machines, so a token is required "
            "(for example: GATEWAY_OPS_TOKEN)",
            uses=[("ops", "host"), ("ops", "token_file")],
        )


def _refuse_http(upstream: Upstream, report: Report) -> None:
    if not is_loopback(urlsplit(upstream.base_url).hostname or ""):
        report.add(
            ("upstream", "base_url"),
            "is plain http on another machine: the account's token would be sent unencrypted; use https, or set "
            "upstream.allow_http = true",
            uses=[("upstream", "allow_http")],
        )


def _compare_price(price: ModelPrice, location: Location, report: Report) -> None:
    given = [
        name
        for name in ("usd_per_second", "hardware", "usd_per_run", "usd_per_output")
        if getattr(price, name) is not None
    ]
    tokens = [name for name in ("usd_per_input_token", "usd_per_output_token") if getattr(price, name) is not None]
    uses = [(*location, name) for name in ModelPrice.model_fields]
    if not given and not tokens:
        report.add(location, "has no price; set one of usd_per_second, hardware, usd_per_run, …", uses=uses)
    elif len(given) + bool(tokens) > 1:
        report.add(location, f"has several prices ({', '.join(given + tokens)}); keep only one", uses=uses)
    elif tokens == ["usd_per_input_token"]:
        report.add(
            (*location, "usd_per_input_token"),
            "needs usd_per_output_token too: without it, output would be free (if it is, set it to 0)",
            uses=uses,
        )
    elif price.hardware is not None:
        _compare_sku(price.hardware, (*location, "hardware"), report)


def _compare_sku(sku: str, location: Location, report: Report) -> None:
    if sku in HARDWARE:
        return
    close = difflib.get_close_matches(sku, HARDWARE, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(HARDWARE)}"
    alternative = "" if location[-1] == "default_hardware" else "; for other hardware set usd_per_second"
    report.add(location, f'"{sku}" has no built-in price; {hint}{alternative}')


def _compare_team(team: Team, aliases: Mapping[str, str], location: Location, report: Report) -> None:
    _find_twins(
        (((*location, "keys", number, "name"), key.name) for number, key in enumerate(team.keys)),
        "same name as {first}; names of a team's keys must be unique",
        report,
    )
    for number, key in enumerate(team.keys):
        _compare_key(team, key, aliases, location, (*location, "keys", number), report)


def _compare_tags(team: Team, keys: tuple[str, ...], location: Location, report: Report) -> None:
    known = f"the keys are {', '.join(keys)}" if keys else "[tags] keys is empty"
    for name in team.per_tag:
        if (tag := name.partition(":")[0]) not in keys:
            report.add((*location, name), f"there is no tag {tag}: {known}", uses=[("tags", "keys")])


def _compare_key(
    team: Team, key: TeamKey, aliases: Mapping[str, str], around: Location, location: Location, report: Report
) -> None:
    sources = [(*location, "key_env"), (*location, "sha256")]
    if key.key_env and key.sha256:
        report.add((*location, "sha256"), "key_env is given too; remove one of them", uses=sources)
    elif not key.key_env and not key.sha256:
        report.add(location, 'needs key_env or sha256 (for example: key_env = "ACME_KEY")', uses=sources)

    def outside(name: str, found: list[str], allowed: str) -> None:
        if found:
            report.add(
                (*location, name),
                f"{', '.join(found)}: outside of the team's {name} ({allowed})",
                uses=[(*around, name)],
            )

    outside("scopes", scopes_outside(team.scopes, key.scopes or ()), ", ".join(team.scopes))
    beyond = models_outside(team, key.models or (), aliases)
    outside("models", beyond, ", ".join(team.models or ()))
    outside("origins", origins_outside(team.origins, key.origins or ()), ", ".join(team.origins))


def _compare_digests(config: Config, report: Report) -> None:
    token = config.upstream.token.get_secret_value()
    places = []
    for index, team in enumerate(config.teams):
        for number, key in enumerate(team.keys):
            location: Location = ("teams", index, "keys", number)
            if key.digest:
                places.append((location, key.digest))
            if key.value is not None and key.value.get_secret_value() == token:
                report.add(
                    location, "is the account's Replicate token, which callers must not have; create a separate key"
                )
    _find_twins(places, "same key as {first}; each key may be listed once", report)


def _find_twins(places: Iterable[tuple[Location, str]], message: str, report: Report) -> None:
    first: dict[str, Location] = {}
    for location, value in places:
        if value in first:
            report.add(location, message.format(first=report.places.mention(first[value])), uses=[first[value]])
        else:
            first[value] = location
