"""Generate the dashboards: `python -m grafana.build` writes `grafana/dashboards`. Do not edit the JSON files."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.boards import cache, overview, streams_webhooks, teams, upstream

FOLDER = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, Dashboard]:
    """Return all dashboards by file name."""
    return {
        "overview": overview.board(),
        "teams": teams.board(),
        "cache": cache.board(),
        "upstream": upstream.board(),
        "streams-webhooks": streams_webhooks.board(),
    }


def to_json(dashboard: Dashboard) -> str:
    """Serialize a dashboard for Grafana."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write all dashboards."""
    for name, dashboard in dashboards().items():
        (FOLDER / f"{name}.json").write_text(to_json(dashboard))


if __name__ == "__main__":
    main()
