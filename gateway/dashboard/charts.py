"""Charts as SVG that satisfy a strict Content-Security-Policy: no styles, scripts or links, colors by class only.

pygal reads files for each chart, so do not call it on the event loop. Its styles, script settings, tooltips and ids are
removed from the output; `page.css` defines the colors for light and dark mode.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import pygal

# pygal installs an import hook for map plug-ins, which are not used here. The hook uses PEP 302's `find_module`: Python
# 3.11 warns about it at each import, and 3.12 ignores it.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

WIDTH: Final = 760
HEIGHT: Final = 260
MOST_SERIES: Final = 6
"""Number of distinguishable colors in `page.css`."""

_MOST_KEPT = 256
_STYLE: Final = pygal.style.Style(legend_font_size=18, label_font_size=14)
"""Its sizes only make room: the stylesheet's font is larger on phones."""
_DROPPED = frozenset({"defs", "desc", "title", "script", "style"})
_UNUSED = frozenset({"plot overlay", "plot text-overlay", "plot tooltip-overlay", "titles"})
_KEPT_ATTRIBUTES = frozenset({
    "viewBox", "class", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "rx", "ry", "d", "points",
    "cx", "cy", "r",
})  # fmt: skip

Series = tuple[str, tuple[float, ...]]
Format = Callable[[float], str]


@lru_cache(maxsize=_MOST_KEPT)
def stacked(labels: tuple[str, ...], series: tuple[Series, ...], description: str, format_value: Format) -> str:
    """Render stacked bars, one per label. `description` is the text for screen readers."""
    return _render(pygal.StackedBar, labels, series, description, format_value, legend=len(series) > 1)


@lru_cache(maxsize=_MOST_KEPT)
def ranked(labels: tuple[str, ...], series: tuple[Series, ...], description: str, format_value: Format) -> str:
    """Render horizontal bars, the first at the top. `description` is the text for screen readers."""
    height = 60 + 24 * max(1, len(labels))
    # pygal draws from the bottom up.
    reversed_series = tuple((name, values[::-1]) for name, values in series)
    return _render(
        pygal.HorizontalStackedBar, labels[::-1], reversed_series, description, format_value, legend=True, height=height
    )


def _render(
    kind: Callable[..., Any],
    labels: tuple[str, ...],
    series: tuple[Series, ...],
    description: str,
    format_value: Format,
    *,
    legend: bool,
    height: int = HEIGHT,
) -> str:
    chart = kind(
        css=[],
        js=[],
        disable_xml_declaration=True,
        width=WIDTH,
        height=height,
        margin=6,
        show_legend=legend,
        legend_at_bottom=True,
        legend_at_bottom_columns=min(len(series), 3) or 1,
        legend_box_size=10,
        style=_STYLE,
        truncate_legend=28,
        truncate_label=34,
        value_formatter=format_value,
        max_scale=5,
        no_data_text="",
        spacing=8,
    )
    chart.x_labels = labels
    for name, values in series:
        chart.add(name, list(values))
    chart.add_xml_filter(lambda root: _clean(root, description))
    return str(chart.render(is_unicode=True))


def _clean(root: Any, description: str) -> Any:
    """Keep only shapes and text, and add the description."""
    for parent in list(root.iter()):
        for child in list(parent):
            # Comments have no tag name.
            if not isinstance(child.tag, str) or _name(child) in _DROPPED or child.get("class") in _UNUSED:
                parent.remove(child)
    for element in root.iter():
        for attribute in set(element.keys()) - _KEPT_ATTRIBUTES:
            del element.attrib[attribute]
    root.set("role", "img")
    root.set("aria-label", description)
    return root


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
