"""`gateway serve` as one of several nodes, with short leases.

python -m tests.support.node_child CONFIG LEASE_SECONDS

Searches for uncertain creates are short too. Others learn from its lease alone that it has ended, as if they ran on
other machines. No code of the gateway knows of this.
"""

import sys
from functools import partial

from gateway import app, cli
from gateway.assembly import upstream
from gateway.nodes.membership import LeaseTimes
from gateway.predictions import adoption
from gateway.runtime import process_place
from gateway.upstream.replicate import UpstreamSettings

SEARCH_SECONDS = 1.0
CREATE_SECONDS = 3.0


def times_of(lease: float) -> LeaseTimes:
    """Return times in the proportions of the usual ones."""
    return LeaseTimes(lease=lease, renew=lease / 5, margin=lease / 5, look=min(1.0, lease / 10))


def main(config: str, lease: str) -> None:
    """Serve until a signal to stop arrives."""
    adoption._SEARCH_SECONDS = SEARCH_SECONDS
    vars(upstream)["UpstreamSettings"] = partial(UpstreamSettings, read_seconds=CREATE_SECONDS)
    vars(process_place)["own_place"] = str
    vars(app)["running"] = partial(app.running, lease_times=times_of(float(lease)))
    cli.main(["serve", "--config", config])


if __name__ == "__main__":
    main(*sys.argv[1:])
