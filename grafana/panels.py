"""Builders of panels, rows and variables in one style.

A panel has a title, a description, a unit and its queries by legend. Every query is limited to `$job`, `$instance` and
`$node`, which `metric` adds; `$team` and `$target` are variables of some dashboards. The data source is `$datasource`,
so that the dashboards work in any Grafana. Totals use the dashboard's time range, rates use `$__rate_interval`.
"""

import re
from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units

COUNT, SECONDS, DOLLARS, SHARE, BYTES = units.Short, units.Seconds, units.Dollars, units.PercentUnit, units.BytesIEC
PER_SECOND, REQUESTS, BYTE_RATE = units.CountsPerSecond, units.RequestsPerSecond, units.BytesPerSecondIEC
TAG = "replicate-gateway"
PREFIX = "replicate_gateway_"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The data source that the reader chooses; Grafana begins with its default."""
CHOSEN = 'job=~"$job", instance=~"$instance", node=~"$node"'
"""Which gateways. Only the processes of `gateway serve --workers` have a label `node`: elsewhere it is empty."""

_FULL, _THIRD, _STAT = 24, 8, 4
Panel = Builder[model.Panel]
Queries = Mapping[str, str]
Steps = Sequence[tuple[float | None, str]]
"""Thresholds: a colour from each value on. The first has no value."""

GOOD: Steps = ((None, "green"),)
PLAIN: Steps = ((None, "blue"),)


def bad_from(warning: float, critical: float) -> Steps:
    """Return thresholds: yellow from `warning` on, red from `critical` on."""
    return ((None, "green"), (warning, "yellow"), (critical, "red"))


def good_from(low: float, high: float) -> Steps:
    """Return thresholds: red below `low`, green from `high` on."""
    return ((None, "red"), (low, "yellow"), (high, "green"))


def metric(text: str) -> str:
    """Replace `@` in a query by the prefix of the metrics, and limit every metric to the chosen gateways."""
    return re.sub(r"@(\w+)(\{)?|\b(process_\w+)(\{)?", _chosen, text)


def _chosen(found: re.Match[str]) -> str:
    ours, brace, process, its_brace = found.groups()
    name = process or PREFIX + ours
    return f"{name}{{{CHOSEN}, " if brace or its_brace else f"{name}{{{CHOSEN}}}"


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    made = [model.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _query(expr: str, legend: str, place: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery().expr(metric(expr)).legend_format(legend).ref_id(chr(ord("A") + place)).datasource(SOURCE)
    )


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    steps: Steps = PLAIN,
    value_names: Mapping[str, str] | None = None,
) -> Panel:
    """Return a panel with a single number. `value_names` maps values to text."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(_STAT)
        .height(4)
        .thresholds(_thresholds(steps))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("–")
        .with_target(_query(expr, title, 0).instant())
    )
    if value_names:
        panel = panel.mappings(
            [
                model.ValueMap(
                    options={value: model.ValueMappingResult(text=text) for value, text in value_names.items()}
                )
            ]
        )
    return panel


def bars(
    title: str, description: str, unit: str, queries: Queries, *, steps: Steps = PLAIN, span: int = _THIRD
) -> Panel:
    """Return a panel with a bar for each series."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .min(0)
        .thresholds(_thresholds(steps))
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("none")
    )
    for place, (legend, expr) in enumerate(queries.items()):
        panel = panel.with_target(_query(expr, legend, place).instant())
    return panel


def lines(
    title: str,
    description: str,
    unit: str,
    queries: Queries,
    *,
    steps: Steps = (),
    stacked: bool = False,
    span: int = _THIRD,
) -> Panel:
    """Return a panel of time series; `steps` draws threshold lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .min(0)
        .fill_opacity(20 if stacked else 5)
        .line_width(1)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if steps:
        panel = panel.thresholds(_thresholds(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        )
    for place, (legend, expr) in enumerate(queries.items()):
        panel = panel.with_target(_query(expr, legend, place).range())
    return panel


def quantiles(name: str, by: str = "", where: str = "", levels: Sequence[float] = (0.5, 0.95, 0.99)) -> dict[str, str]:
    """Return the queries for quantiles of a histogram, in total or by label `by`."""
    grouped = f"le, {by}" if by else "le"
    chosen = f"{{{where}}}" if where else ""
    return {
        (f"p{level * 100:g}" + (f" {{{{{by}}}}}" if by else "")): (
            f"histogram_quantile({level:g}, sum by ({grouped}) (rate(@{name}_bucket{chosen}[$__rate_interval])))"
        )
        for level in levels
    }


_INFO = f"{PREFIX}build_info"
_COMMON = {
    "job": ("Job", f"label_values({_INFO}, job)"),
    "instance": ("Instance", f'label_values({_INFO}{{job=~"$job"}}, instance)'),
    "node": ("Process", f'label_values({PREFIX}ready{{job=~"$job", instance=~"$instance"}}, node)'),
}
_VARIABLES = _COMMON | {
    "team": ("Team", metric("label_values(@predictions_created_total, team)")),
    "target": ("Target", metric("label_values(@predictions_created_total, target)")),
}


class Annotation(model.AnnotationQuery):
    """An annotation whose times are the values of a metric, in milliseconds.

    The fields are those of Grafana's data source for Prometheus, which its published types leave out.
    """

    def to_json(self) -> dict[str, object]:
        """Serialize it."""
        labels = {"titleFormat": self.name, "textFormat": "{{instance}} {{node}}", "tagKeys": "instance,node"}
        return super().to_json() | {"useValueForTime": True, "step": "60s"} | labels


def _annotations() -> list[model.AnnotationQuery]:
    # `ready` leaves out the starts of other processes.
    start = "process_start_time_seconds * 1000 and on (job, instance, node) @ready"
    reload = '@config_reloads_total{result="taken"} > 0'
    reload = f"@config_loaded_timestamp_seconds * 1000 and on (job, instance, node) {reload}"
    return [
        Annotation(name=name, datasource=SOURCE, enable=True, icon_color=color, expr=metric(expr))
        for name, color, expr in (("Start", "green", start), ("Reload", "blue", reload))
    ]


def board(
    uid: str, title: str, description: str, rows: Mapping[str, Sequence[Panel]], *variables: str
) -> model.Dashboard:
    """Build a dashboard of rows of panels, with links to the other dashboards."""
    made = (
        dashboard.Dashboard(title)
        .uid(f"{TAG}-{uid}")
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Gateway")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
    )
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for name in (*_COMMON, *variables):
        label, query = _VARIABLES[name]
        made = made.with_variable(
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query(query)
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(model.VariableOption(text="All", value="$__all"))
        )
    for name, panels in rows.items():
        made = made.with_row(dashboard.Row(name))
        for panel in panels:
            made = made.with_panel(panel)
    built = made.build()
    built.annotations = model.AnnotationContainer(list_val=_annotations())
    for place, panel in enumerate(built.panels or [], start=1):
        panel.id_val = place
    return built
