"""`gateway config`: write a first config, show the effective one, print the JSON Schema for editors."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import os
from pathlib import Path
from typing import Final

import click

from gateway.commands.common import CONFIG_OPTION, config_file, plain_errors, raise_problems

FIRST_CONFIG: Final = """\
# The config of replicate-gateway. A setting that is left out has its default, and a limit that is left out does not
# apply. config.example.toml has every setting.
#
#   gateway check                       validates this file
#   gateway config show                 prints every setting that applies, and where it comes from
#   gateway config schema > config.schema.json
#                                       completes and checks this file in an editor, after this as the first line:
#                                       #:schema ./config.schema.json
#
# Never write a secret here: `…_env` names an environment variable and `…_file` a file that holds it.

[server]
host = "127.0.0.1"                      # "0.0.0.0" for callers on other machines
port = 8080
#public_url = "https://gateway.example.com"     # the address that callers use
#trusted_proxies = ["127.0.0.1/32"]     # the proxy with the certificate, if public_url is https

[upstream]
token_env = "REPLICATE_API_TOKEN"       # the account's token; only the gateway needs it

[store]
url = "sqlite:///gateway.db"            # created at the first start

# A team is an app, a customer or a department: its keys, predictions, files and budgets are its own.
# Create a key with: gateway keys create my-team --name server
[[teams]]
name = "my-team"                        # permanent: records and usage refer to it
scopes = ["read", "predict", "files", "tokens"]
#models = ["black-forest-labs/*", "meta/*"]     # the models that it may run; default: all
#origins = ["https://app.example.com"]  # the web pages that may call the gateway
budget_usd_per_day = 20
per_user = { predictions_per_minute = 60, budget_usd_per_day = 2 }     # of each user (header Gateway-User)
"""


@click.group()
def config() -> None:
    """Write, show and describe the config."""


@config.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write. Default: $GATEWAY_CONFIG, else ./config.toml.",
)
def init(config_path: Path | None) -> None:
    """Write a small config with comments. An existing file is not changed."""
    with plain_errors():
        from gateway.config.loading import DEFAULT_FILE, FILE_VARIABLE

        path = config_file(config_path) or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(FIRST_CONFIG)
        except FileExistsError:
            raise click.ClickException(f"{path} exists, and was not changed") from None
        click.echo(f"Wrote {path}. Next: export REPLICATE_API_TOKEN=r8_…, then gateway check.")


@config.command()
@click.option("--changed", is_flag=True, help="Only settings that the file or the environment sets.")
@CONFIG_OPTION
def show(config_path: Path | None, *, changed: bool) -> None:
    """Print the effective config as TOML, each setting with its source.

    The source is a line of the file, an environment variable, or "default". Values that are or
    may be secret are not shown.
    """
    with plain_errors():
        from gateway.config import ConfigError, load_with_places
        from gateway.config.show import lines

        try:
            found, places, _ = load_with_places(config_file(config_path), os.environ, serving=False)
        except ConfigError as error:
            raise_problems(error.problems)
        for line in lines(found, places, only_given=changed):
            click.echo(line)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the config file, for editors."""
    with plain_errors():
        import json

        from gateway.config.schema import schema as schema_of_config

        click.echo(json.dumps(schema_of_config(), indent=2, ensure_ascii=False))
