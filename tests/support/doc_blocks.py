"""The fenced blocks of the documents, so that tests run what readers paste."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCES = re.compile(r"^```", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: the heading above it, its language, its number among those of both (from 0), its text."""

    heading: str
    language: str
    number: int
    text: str


def all_blocks(document: str) -> list[Block]:
    """Return every block of a document. Fail if a fence has no language or no end, for it would be skipped."""
    text = (ROOT / document).read_text()
    found = list(_blocks(text))
    assert len(_FENCES.findall(text)) == 2 * len(found), f"{document} has a fence without a language or an end"
    return found


def blocks(document: str, heading: str, language: str) -> list[str]:
    """Return the blocks of a language below a heading, up to the next heading. Fail if there is no such heading."""
    text = (ROOT / document).read_text()
    assert heading in (match[1] for match in _headings(text)), f"{document} has no heading {heading!r}"
    return [block.text for block in _blocks(text) if (block.heading, block.language) == (heading, language)]


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Put values in the place of a recipe's own; each has to be there."""
    for old, new in changes.items():
        assert old in text, f"the recipe does not say {old!r} any more"
        text = text.replace(old, new)
    return text


def changed(diff: str) -> str:
    """Return the text after a diff has been applied: what is added and what stays."""
    assert all(line[:1] in ("", " ", "+", "-") for line in diff.splitlines()), "a line of the diff has no mark"
    return "".join(line[1:] + "\n" for line in diff.splitlines() if line[:1] != "-")


def anchors(document: str) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    text = (ROOT / document).read_text()
    return {re.sub(r"[^\w\- ]", "", match[1].lower()).replace(" ", "-") for match in _headings(text)}


def _headings(text: str) -> list[re.Match[str]]:
    # A line that begins with # inside a block is a comment, not a heading.
    fenced = [match.span() for match in _BLOCK.finditer(text)]
    return [m for m in _HEADING.finditer(text) if not any(start <= m.start() < end for start, end in fenced)]


def _blocks(text: str) -> Iterator[Block]:
    headings = _headings(text)
    numbers: Counter[tuple[str, str]] = Counter()
    for match in _BLOCK.finditer(text):
        heading = next((each[1] for each in reversed(headings) if each.start() < match.start()), "")
        place = heading, match[1]
        yield Block(*place, numbers[place], match[2])
        numbers[place] += 1
