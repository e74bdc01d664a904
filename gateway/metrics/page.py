"""Generates `docs/metrics.md` from the catalogue: `python -m gateway.metrics > docs/metrics.md`."""

from collections.abc import Iterator

from gateway.metrics import catalogue
from gateway.metrics.catalogue import NAMESPACE, Family
from gateway.metrics.labels import Label
from gateway.metrics.registry import MAX_SERIES, most_samples

_HEAD = f"""# Metrics

For operators: every metric with its type, labels and meaning. The ops listener serves `/metrics` in the Prometheus text
format or as OpenMetrics. `python -m gateway.metrics` generates this page from
[the catalogue](../gateway/metrics/catalogue.py); a test compares the two.

All names begin with `{NAMESPACE}_`, which is omitted below. Units are seconds, bytes and dollars. Labels never contain
ids, URLs or text from callers. The `process_*` metrics of the Python client are exported too.
[Dashboards](../grafana/dashboards) and [alerts](alerts.md) use only these metrics.
"""

_TAIL = """
## Number of series

Label values are bounded. Series of values from the config (teams) or the code (reasons, results) exist from the start
with 0, so that `increase` counts the first event. Names of targets come from callers. The first `[metrics] top_targets`
get their own label value, beginning with those that the config names exactly (`models` of teams, prices, cache rules).
The rest counts as `other`. A metric with such a label has at most {most} series. Values replaced by `other` are counted
in `labels_dropped_total`. So a scrape has at most

| teams | `top_targets` | samples |
|---|---|---|
{rows}

Typical numbers are far lower, because most teams use few targets. Prometheus shows the actual number as
`scrape_samples_scraped`.
"""


def render() -> str:
    """Return the page as Markdown."""
    rows = "\n".join(f"| {teams} | {targets} | {most_samples(teams, targets):,} |" for teams, targets in _EXAMPLE_SIZES)
    sections = "".join(_section(title, families) for title, families in catalogue.SECTIONS.items())
    return _HEAD + sections + _TAIL.format(most=f"{MAX_SERIES:,}", rows=rows)


_EXAMPLE_SIZES = ((3, 50), (10, 50), (50, 50), (50, 200))


def _section(title: str, families: list[Family]) -> str:
    rows = [
        (f"`{family.sample.removeprefix(NAMESPACE + '_')}`", family.kind.value, _labels(family), family.help_text)
        for family in families
    ]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"\n## {title}\n\n| metric | type | labels | description |\n|---|---|---|---|\n{lines}\n"


def _labels(family: Family) -> str:
    return "<br>".join(f"`{label.name}`: {', '.join(_values(label))}" for label in family.labels)


def _values(label: Label) -> Iterator[str]:
    if label.help_text:
        yield label.help_text
        return
    yield from (f"`{value}`" for value in label.values)
