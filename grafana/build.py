"""Generate the dashboards, and the links from alerts to their runbooks.

`python -m grafana.build` writes `grafana/dashboards`; do not edit the JSON files. `--runbooks URL` says where you
publish docs/alerts.md: every `runbook_url` of the alert rules and of their tests begins with it.
"""

import argparse
import json
import re
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.boards import cache, nodes, overview, streams_webhooks, teams, upstream

FOLDER = Path(__file__).parent / "dashboards"
ALERTS = Path(__file__).parent / "alerts"
RUNBOOKS = "https://docs.example.com/replicate-gateway/alerts"
"""Where the runbooks are unless `--runbooks` says otherwise: an example, for this project has no web site."""


def dashboards() -> dict[str, Dashboard]:
    """Return all dashboards by file name."""
    return {
        "overview": overview.board(),
        "teams": teams.board(),
        "cache": cache.board(),
        "upstream": upstream.board(),
        "streams-webhooks": streams_webhooks.board(),
        "nodes": nodes.board(),
    }


def to_json(dashboard: Dashboard) -> str:
    """Serialize a dashboard for Grafana."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def with_runbooks(text: str, base: str) -> str:
    """Return rules or their tests whose links to runbooks begin with `base`."""
    return re.sub(r"(runbook_url: )\S*(?=#\w+\b)", lambda found: found[1] + base, text)


def main() -> None:
    """Write all dashboards and links."""
    parser = argparse.ArgumentParser(prog="python -m grafana.build", description="Write dashboards and runbook links.")
    parser.add_argument(
        "--runbooks", default=RUNBOOKS, metavar="URL", help="address of the published docs/alerts.md (%(default)s)"
    )
    base = parser.parse_args().runbooks
    for name, dashboard in dashboards().items():
        (FOLDER / f"{name}.json").write_text(to_json(dashboard))
    for path in (*ALERTS.glob("*.yml"), *ALERTS.glob("tests/*.yml")):
        path.write_text(with_runbooks(path.read_text(), base))


if __name__ == "__main__":
    main()
