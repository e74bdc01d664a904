"""The code blocks of the documents, so that tests run what readers paste."""

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, heading: str, language: str) -> list[str]:
    """Return the blocks of a language below a heading, up to the next heading."""
    text = (ROOT / document).read_text()
    # A line that begins with # inside a block is a comment, not a heading.
    fenced = [match.span() for match in _BLOCK.finditer(text)]
    headings = [
        match for match in _HEADING.finditer(text) if not any(start <= match.start() < end for start, end in fenced)
    ]
    (number,) = (n for n, match in enumerate(headings) if match[1] == heading)
    end = headings[number + 1].start() if number + 1 < len(headings) else len(text)
    section = text[headings[number].end() : end]
    return [match[2] for match in _BLOCK.finditer(section) if match[1] == language]


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Put values in the place of a recipe's own; each has to be there."""
    for old, new in changes.items():
        assert old in text, f"the recipe does not say {old!r} any more"
        text = text.replace(old, new)
    return text
