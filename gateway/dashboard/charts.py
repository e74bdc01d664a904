"""Charts as SVG that a strict content policy lets stand: no style, no script, no link, colours by class alone.

pygal draws them, and reads files of its own each time: not for the loop. What it adds for pages of its own (styles, a
script's settings, tooltips, ids) is taken out again before a chart is written; `page.css` gives the colours, for light
and for dark.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import pygal

# pygal hooks into every later import of the whole process, for plug-ins with maps, of which there are none here; and in
# a way that Python 3.11 warns of at each import and 3.12 passes over (PEP 302's `find_module`).
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

WIDTH: Final = 760
HEIGHT: Final = 260
MOST_SERIES: Final = 6
"""As many colours as can be told apart; see `page.css`."""

_MOST_KEPT = 256
_DROPPED = frozenset({"defs", "desc", "title", "script", "style"})
_UNUSED = frozenset({"plot overlay", "plot text-overlay", "plot tooltip-overlay", "titles"})
_KEPT_ATTRIBUTES = frozenset({
    "viewBox", "class", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "rx", "ry", "d", "points",
    "cx", "cy", "r",
})  # fmt: skip

Series = tuple[str, tuple[float, ...]]
Write = Callable[[float], str]


@lru_cache(maxsize=_MOST_KEPT)
def stacked(labels: tuple[str, ...], series: tuple[Series, ...], words: str, write: Write) -> str:
    """Draw bars that stand on each other, one for each label. `words` says what is seen, to those who do not see it."""
    return _drawn(pygal.StackedBar, labels, series, words, write, legend=len(series) > 1)


@lru_cache(maxsize=_MOST_KEPT)
def ranked(labels: tuple[str, ...], series: tuple[Series, ...], words: str, write: Write) -> str:
    """Draw bars that lie below each other, the first at the top."""
    height = 60 + 24 * max(1, len(labels))
    # From the bottom up, as axes go.
    turned = tuple((name, values[::-1]) for name, values in series)
    return _drawn(pygal.HorizontalStackedBar, labels[::-1], turned, words, write, legend=True, height=height)


def _drawn(
    kind: Callable[..., Any],
    labels: tuple[str, ...],
    series: tuple[Series, ...],
    words: str,
    write: Write,
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
        truncate_legend=28,
        truncate_label=34,
        value_formatter=write,
        max_scale=5,
        no_data_text="",
        spacing=8,
    )
    chart.x_labels = labels
    for name, values in series:
        chart.add(name, list(values))
    chart.add_xml_filter(lambda root: _clean(root, words))
    return str(chart.render(is_unicode=True))


def _clean(root: Any, words: str) -> Any:
    """Leave shapes and texts, and say in words what they show."""
    for parent in list(root.iter()):
        for child in list(parent):
            # What has no name is a comment.
            if not isinstance(child.tag, str) or _name(child) in _DROPPED or child.get("class") in _UNUSED:
                parent.remove(child)
    for element in root.iter():
        for attribute in set(element.keys()) - _KEPT_ATTRIBUTES:
            del element.attrib[attribute]
    root.set("role", "img")
    root.set("aria-label", words)
    return root


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
