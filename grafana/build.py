"""Writes the dashboards: `python -m grafana.build` puts them into `grafana/dashboards`. They are made, not edited."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.boards import cache, overview, streams_webhooks, teams, upstream

FOLDER = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, Dashboard]:
    """Return every dashboard by the name of its file."""
    return {
        "overview": overview.board(),
        "teams": teams.board(),
        "cache": cache.board(),
        "upstream": upstream.board(),
        "streams-webhooks": streams_webhooks.board(),
    }


def written(dashboard: Dashboard) -> str:
    """Write one as Grafana reads it."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write all of them."""
    for name, dashboard in dashboards().items():
        (FOLDER / f"{name}.json").write_text(written(dashboard))


if __name__ == "__main__":
    main()
