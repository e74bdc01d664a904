"""Writes `docs/metrics.md` from the catalogue: `python -m gateway.metrics > docs/metrics.md`."""

from collections.abc import Iterator

from gateway.metrics import catalogue
from gateway.metrics.catalogue import NAMESPACE, Family
from gateway.metrics.labels import Label
from gateway.metrics.registry import MAX_SERIES, most_samples

_HEAD = f"""# Metrics

`/metrics` on the ops listener, as Prometheus text or OpenMetrics. This page is made from
[the catalogue](../gateway/metrics/catalogue.py) by `python -m gateway.metrics`; a test holds the two together.

All names begin with `{NAMESPACE}_`, which is left out below; counters are spelled with `_total`. Seconds, bytes,
dollars. No label ever holds an id, a URL or a caller's text. Beside these there are the usual `process_*` of the Python
client. [Dashboards](../grafana/dashboards) and [alerts](alerts.md) use nothing else.
"""

_TAIL = """
## How many series

Label sets are closed. Where they come from the config (teams), or from the code (reasons, results), their series exist
from the start with 0, so that `increase` is right from the first event on. Names of targets come from callers: the
first `[metrics] top_targets` are labels of their own, those that the config names exactly (`models` of teams, prices,
cache rules) before all others; the rest count as `other`. One metric whose labels learn has at most {most} series; what
is no longer told apart is counted in `labels_dropped_total`. So whatever callers send, a scrape holds at most

| teams | `top_targets` | samples |
|---|---|---|
{rows}

In practice it is far less: most teams use few targets. Prometheus shows the number as
`scrape_samples_scraped`.
"""


def render() -> str:
    """Write the page."""
    rows = "\n".join(f"| {teams} | {targets} | {most_samples(teams, targets):,} |" for teams, targets in _HOUSES)
    sections = "".join(_section(title, families) for title, families in catalogue.SECTIONS.items())
    return _HEAD + sections + _TAIL.format(most=f"{MAX_SERIES:,}", rows=rows)


_HOUSES = ((3, 50), (10, 50), (50, 50), (50, 200))


def _section(title: str, families: list[Family]) -> str:
    rows = [
        (f"`{family.sample.removeprefix(NAMESPACE + '_')}`", family.kind.value, _labels(family), family.words)
        for family in families
    ]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"\n## {title}\n\n| metric | kind | labels | |\n|---|---|---|---|\n{lines}\n"


def _labels(family: Family) -> str:
    return "<br>".join(f"`{label.name}`: {', '.join(_values(label))}" for label in family.labels)


def _values(label: Label) -> Iterator[str]:
    if label.words:
        yield label.words
        return
    yield from (f"`{value}`" for value in label.values)
