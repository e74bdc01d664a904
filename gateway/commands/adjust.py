"""`gateway usage adjust`: correct spend by an entry of the ledger. Works while the gateway is running."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

import click

from gateway.commands.common import (
    CONFIG_OPTION,
    actor,
    examples,
    known_team,
    load_config,
    opened_store,
    plain_errors,
    run,
)
from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from gateway.access.authentication import AccessSettings
    from gateway.config import Config
    from gateway.domain.limits import Allowance
    from gateway.store.interface import Store

_LONGEST_REASON: Final = 500
_LONGEST_USER: Final = 200


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        'gateway usage adjust acme -2.50 --reason "refund for the outage of the 3rd"',
        'gateway usage adjust acme 10 --reason "invoice 7" --user u-42 --dry-run',
    ),
)
@click.argument("team_name", metavar="TEAM")
@click.argument("amount", metavar="AMOUNT")
@click.option("--reason", required=True, help="Reason; recorded in the ledger.")
@click.option("--key", "key_id", metavar="KEY_ID", default="", help="Correct the spend of this key of the team, too.")
@click.option("--user", metavar="USER", help="Correct the spend of this user of the team, too.")
@click.option(
    "--tag", "given_tags", metavar="KEY=VALUE", multiple=True, help="Correct the spend of this cost tag, too."
)
@click.option(
    "--id", "adjustment_id", metavar="ID", help="ID of the correction; repeating it with the same ID changes nothing."
)
@click.option("--dry-run", is_flag=True, help="Only print the budgets as they would be.")
@click.option("--yes", is_flag=True, help="Do not ask before a budget is used up.")
@CONFIG_OPTION
def adjust(
    team_name: str,
    amount: str,
    reason: str,
    key_id: str,
    user: str | None,
    given_tags: tuple[str, ...],
    adjustment_id: str | None,
    config_path: Path | None,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Correct the spend of TEAM by AMOUNT dollars.

    A negative AMOUNT reduces it. The correction is a separate ledger entry, and counts in the budgets of today and this
    month, which are printed. Asks for confirmation if it uses up one of them.

    With --key, --user and --tag, the correction is also in the usage and budgets of that key, user and cost tag.

    If an error leaves it open whether it was recorded, repeat the command with the ID that the error names.
    """
    config = load_config(config_path)
    with plain_errors():
        from gateway.assembly.settings import access_settings, teams_of
        from gateway.commands import budgets
        from gateway.domain import money

        team = known_team(config, team_name).name
        microusd = _microusd(amount)
        reason = " ".join(reason.split())
        if not 0 < len(reason) <= _LONGEST_REASON or not reason.isprintable():
            raise click.BadParameter(f"expected 1 to {_LONGEST_REASON} printable characters", param_hint="--reason")
        if user is not None and not (0 < len(user) <= _LONGEST_USER and user.isprintable()):
            raise click.BadParameter(f"expected 1 to {_LONGEST_USER} printable characters", param_hint="--user")
        name, tagged = adjustment_id or token_hex(8), _tags(config, given_tags)

        access = access_settings(config)
        known = teams_of(config)[team]

        async def predict() -> list[budgets.Effect]:
            async with opened_store(config) as store:
                allowance = await _allowance_of(access, store, team, key_id)
                limited = budgets.subjects_of(known, key_id, allowance, user, tagged)
                now = time.time()
                meters = await store.meters([each.limits.scope for each in limited], now)
                return budgets.effects(limited, meters, microusd, now)

        async def correct() -> bool:
            async with opened_store(config) as store:
                try:
                    return await store.adjust(
                        team,
                        microusd,
                        reason,
                        time.time(),
                        actor=actor(),
                        adjustment_id=name,
                        key_id=key_id,
                        user=user,
                        tagged=tagged,
                    )
                except StoreUnavailable as exc:
                    text = f"{exc.detail} The correction may be recorded. To make sure, repeat it with --id {name}."
                    raise click.ClickException(text) from exc

        effects = run(predict())
        exhausted = [effect.text for effect in effects if effect.exhausts]
        if exhausted and not yes and not dry_run:
            given = {"tag": tagged, "user": user is not None, "key": key_id}
            whose = next((kind for kind, value in given.items() if value), f"team {team}")
            click.echo(f"No more predictions that cost money for all that these budgets limit ({whose}):", err=True)
            click.echo("\n".join(exhausted), err=True)
            click.confirm("Correct the spend?", abort=True, err=True)
        if not dry_run and not run(correct()):
            click.echo(f"There is a correction with the ID {name}. Nothing was changed.")
            return
        done = f"{'would be ' if dry_run else ''}{'raised' if microusd > 0 else 'reduced'}"
        click.echo(f"Team {team}: spend {done} by ${money.usd(abs(microusd))}.")
        for effect in effects:
            click.echo(effect.text)
        if dry_run:
            click.echo("Nothing was changed.", err=True)


def _tags(config: "Config", given: tuple[str, ...]) -> str:
    from gateway.domain import tags

    try:
        return tags.parse(",".join(given), config.tags.keys)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--tag") from None


async def _allowance_of(access: "AccessSettings", store: "Store", team: str, key_id: str) -> "Allowance":
    """Return the limits of a key. Raise `BadParameter` if the team has no such key."""
    from gateway.domain.limits import NO_LIMITS

    if not key_id:
        return NO_LIMITS
    key = access.keys.get(key_id) or await store.key(key_id)
    if key is None or key.team != team:
        raise click.BadParameter(f"team {team} has no key {key_id!r}: see `gateway keys list`", param_hint="--key")
    return access.allowances.get(key_id) or key.allowance or NO_LIMITS


def _microusd(text: str) -> int:
    from gateway.domain import money

    try:
        microusd = money.exact_microusd(Decimal(text.removeprefix("$")))
    except InvalidOperation:
        raise click.BadParameter("expected dollars (for example: -2.50)", param_hint="AMOUNT") from None
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="AMOUNT") from None
    if microusd == 0:
        raise click.BadParameter("expected an amount other than 0", param_hint="AMOUNT")
    return microusd
