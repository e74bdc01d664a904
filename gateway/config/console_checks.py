"""Checks and warnings of signing in to the console at an issuer."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.config.issuers import ConsoleSignIn, Issuer
from gateway.config.listeners import Ops
from gateway.config.model import Config
from gateway.config.positions import Location
from gateway.config.problems import Problem
from gateway.config.report import Report
from gateway.config.secret_settings import SecretSettings
from gateway.config.values import is_loopback

_OPENID = "openid"
_REFRESH = "offline_access"


def with_client_secret(issuer: Issuer, at: Location, secrets: SecretSettings) -> Issuer:
    """Return an issuer with the secret of its client resolved."""
    console = issuer.console
    if console is None:
        return issuer
    name, path = console.client_secret_env, console.client_secret_file
    secret = secrets.in_file_or_variable(
        (*at, "console"), "client_secret", name=name, path=path, is_name_given=name is not None
    )
    return issuer.model_copy(update={"console": console.with_client_secret(secret)})


def compare(config: Config, console: ConsoleSignIn, at: Location, report: Report) -> None:
    """Report settings of a table `console` that contradict each other, or the teams."""
    for claim, values, example in (
        ("operator_claim", "operators", 'operators = ["platform"]'),
        ("lead_claim", "leads", 'leads = { "acme-leads" = "acme" }'),
    ):
        if getattr(console, claim) is not None and not getattr(console, values):
            report.add((*at, claim), f"needs {values} (for example: {example})", uses=[(*at, values)])
        elif getattr(console, values) and getattr(console, claim) is None:
            report.add((*at, values), f"needs {claim}, the claim whose values it lists", uses=[(*at, claim)])
    if not console.operators and not console.leads and not console.operator_claim and not console.lead_claim:
        uses = [(*at, name) for name in ("operator_claim", "operators", "lead_claim", "leads")]
        report.add(at, "allows nobody to sign in: name operators, or leads", uses=uses)
    if _OPENID not in console.scopes:
        report.add((*at, "scopes"), f"needs {_OPENID}: without it, the issuer does not say who signed in")
    for value, team in console.leads.items():
        if config.team(team) is None:
            known = ", ".join(each.name for each in config.teams) or "none"
            report.add((*at, "leads", value), f"there is no team {team} (teams: {known})", uses=[("teams",)])


def warnings(config: Config) -> Iterator[Problem]:
    """Yield warnings about signing in to the console at issuers."""
    ops = config.ops
    if ops.public_url is not None and ops.public_url.startswith("http:") and not _is_local(ops.public_url):
        yield Problem(
            "ops.public_url",
            "is plain http: whoever listens on the way has the tokens and sessions of operators; use https",
        )
    if (ops.public_url or "").startswith("https:") and not config.server.trusted_proxies:
        yield Problem(
            "server.trusted_proxies",
            "is empty, and [ops] public_url is https, so a proxy is in front: everybody has the proxy's address, and "
            "ten failed sign-ins of anybody keep all others from signing in to the console",
        )
    tables = [(index, issuer.console) for index, issuer in enumerate(config.issuers) if issuer.console is not None]
    for index, console in tables:
        if _REFRESH in console.scopes:
            yield Problem(
                f"issuers[{index}].console.scopes", f"{_REFRESH} asks for a token that the gateway does not use"
            )
    if not tables:
        return
    path = f"issuers[{tables[0][0]}].console"
    if ops.public_url is None and not is_loopback(ops.host):
        yield Problem(
            path,
            f"[ops] public_url is not set, and {ops.host} is reachable from other machines: people sign in at issuers "
            "from this machine only, because the issuer would not know where to send them back",
        )
    if not _has_token(ops):
        yield Problem(
            path,
            "[ops] has no token_env or token_file: everybody on this machine is an operator, without signing in",
        )


def _has_token(ops: Ops) -> bool:
    return ops.token_env is not None or ops.token_file is not None


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")
