"""Merge the metrics of several processes of one gateway into one page, each series with the process that has it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

LABEL: Final = "node"
_COMMENTS: Final = ("# HELP ", "# TYPE ")


class _Family(NamedTuple):
    """One metric: its comments, and its samples of all processes."""

    comments: dict[str, str]
    samples: list[str]


def merge(pages: Mapping[str, str]) -> str:
    """Return one page in Prometheus's text format from the pages of processes, by their names.

    Each sample gets the label `node` with the name. If it has one already, that becomes `exported_node`, as Prometheus
    does with labels of its own.
    """
    families: dict[str, _Family] = {}
    for name, page in pages.items():
        for family, line in _lines(page):
            known = families.setdefault(family, _Family({}, []))
            if line.startswith(_COMMENTS):
                known.comments.setdefault(line[:7], line)
            else:
                known.samples.append(_labelled(line, name))
    return "".join(f"{line}\n" for family in families.values() for line in (*family.comments.values(), *family.samples))


def _lines(page: str) -> Iterator[tuple[str, str]]:
    """Yield the lines with the metric that each belongs to: a histogram's samples have names of their own."""
    family = ""
    for line in page.splitlines():
        if line.startswith(_COMMENTS):
            family = line.split(" ", 3)[2]
        elif not line or line.startswith("#"):
            continue
        yield family or _name(line), line


def _name(sample: str) -> str:
    return sample.partition("{")[0].partition(" ")[0]


def _labelled(sample: str, process: str) -> str:
    name, brace, rest = sample.partition("{")
    own = f'{LABEL}="{process}"'
    if not brace or " " in name:
        # No labels. A brace can still be in an exemplar, which comes after the value.
        name, _, rest = sample.partition(" ")
        return f"{name}{{{own}}} {rest}"
    if rest.startswith("}"):
        return f"{name}{{{own}{rest}"
    return f"{name}{{{own},{_renamed(rest) if f'{LABEL}=' in rest else rest}"


def _renamed(labels: str) -> str:
    """Rename a label `node`. A name follows a comma outside of quotes, or the brace."""
    parts: list[str] = []
    for part, is_quoted in _quoted_parts(labels):
        if is_quoted:
            parts.append(part)
        elif part.startswith(f"{LABEL}=") and not parts:
            parts.append(f"exported_{part}")
        else:
            parts.append(part.replace(f",{LABEL}=", f",exported_{LABEL}="))
    return "".join(parts)


def _quoted_parts(text: str) -> Iterable[tuple[str, bool]]:
    """Split a text into what is inside of quotes, with them, and outside."""
    begin, is_quoted, is_escaped = 0, False, False
    for index, letter in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted and letter == "\\":
            is_escaped = True
        elif letter == '"':
            end = index + 1 if is_quoted else index
            if end > begin:
                yield text[begin:end], is_quoted
            begin, is_quoted = end, not is_quoted
    if begin < len(text):
        yield text[begin:], is_quoted
