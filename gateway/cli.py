"""The command line. The commands are in `gateway.commands`."""

from pathlib import Path

import click

from gateway.commands.audit import audit
from gateway.commands.cache import cache
from gateway.commands.check import check
from gateway.commands.config import config
from gateway.commands.keys import keys
from gateway.commands.ledger import ledger
from gateway.commands.predictions import predictions
from gateway.commands.serve import demo, serve, simulate
from gateway.commands.store import store
from gateway.commands.usage import usage
from gateway.commands.version import version
from gateway.commands.webhooks import webhooks


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version(), prog_name="gateway")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Config file. Default: $GATEWAY_CONFIG, else ./config.toml. Also accepted after the command.",
)
def main(config_path: Path | None) -> None:
    """A gateway between many callers and one Replicate account.

    Exit codes: 0 success; 1 the config, the store or the request is wrong, and stderr says what; 2 the command line is
    wrong; 130 and 143 ended by SIGINT or SIGTERM before it was done.
    """
    # Read by gateway.commands.common.config_file: the option is accepted before and after the command.
    del config_path


for command in (serve, demo, simulate, check, config, keys, predictions, usage, ledger, cache, webhooks, audit, store):
    main.add_command(command)
