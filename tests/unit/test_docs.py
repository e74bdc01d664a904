"""The documents: their links lead somewhere, the headings that code cites exist, the paths that they name exist."""

import re
import subprocess
from pathlib import Path

import pytest

from gateway.config.changes import LIVE, RESTART
from tests.support.doc_blocks import ROOT, anchors

DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
PAGES = ("docs/architecture.md", "docs/replicate-api.md")
# A citation may go on in the next line, behind the mark of a comment.
NEXT_LINE = re.compile(r"\s*\n\s*(?:# |-- )?")


def headings(page: str) -> list[str]:
    """Return a page's headings."""
    return re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)


def found(name: str) -> list[Path]:
    """Return the files or folders of a name, below the root, the package or the tests."""
    return [root / name for root in (ROOT, ROOT / "gateway", ROOT / "tests") if (root / name).exists()]


def tracked() -> list[Path]:
    """Return the files that may cite a page."""
    listed = subprocess.run(["git", "ls-files", "gateway", "tests", "bench"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in listed.stdout.decode().splitlines() if name.endswith((".py", ".sql"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(document: str) -> None:
    """A reader who follows a link arrives at a file that exists, and at the heading that its anchor names."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        if not target.exists() or (anchor and anchor not in anchors(str(target.relative_to(ROOT)))):
            dead.append(link)
    assert not dead


@pytest.mark.parametrize("page", PAGES)
def test_every_cited_heading_exists(page: str) -> None:
    """A citation leads a reader to a heading of that name."""
    known = headings(page)
    wrong = []
    for path in tracked():
        if path == Path(__file__):
            continue
        text = NEXT_LINE.sub(" ", path.read_text())
        cited = re.findall(rf"{re.escape(page)}, (.{{1,40}})", text)
        wrong += [f"{path.relative_to(ROOT)}: {rest}" for rest in cited if not rest.startswith(tuple(known))]
    assert not wrong


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_every_named_path_exists(page: str) -> None:
    """A file or folder that a page names is there, below the root, the package or the tests."""
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`([a-z_0-9][A-Za-z_.0-9-]*/[A-Za-z_./0-9-]*)`", text))
    paths = [name for name in named if name.endswith((".py", ".sql", ".md", ".toml", "/"))]
    missing = [name for name in paths if not found(name)]
    # The table of folders names these below the folder of their row.
    parts = {"handlers/", "sse/", "ops/", "sql/", "sqlite/", "postgres/", "objects/", "rules/", "ports/"}
    assert set(missing) <= parts


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_every_name_that_follows_a_path_is_in_that_file(page: str) -> None:
    """The pages write `path.py` (`name`) for a function or class of a file."""
    text = NEXT_LINE.sub(" ", (ROOT / page).read_text())
    named = re.findall(r"`([a-z_0-9/]+\.py)` \(`(\w+)`\)", text)
    assert [name for path, name in named if not any(name in file.read_text() for file in found(path))] == []


def test_table_of_reloads_names_every_section_and_what_needs_a_restart() -> None:
    """Whole sections, or their settings, stand in the column that `gateway/config/changes.py` says."""
    page = (ROOT / "docs/deploy.md").read_text()
    table = re.findall(r"(?m)^\|(.*)\|(.*)\|$", page.partition("| reloaded |")[2].split("\n\n")[0])
    live, restart = (" ".join(row[column] for row in table) for column in (0, 1))
    for section in LIVE.keys() - RESTART.keys():
        assert f"`[{section}]" in live, section
    for section, settings in RESTART.items():
        if section in LIVE:
            assert f"`[{section}]" in live, section
            assert all(f"`{name}`" in restart for name in settings), section
        else:
            assert f"`[{section}]" in restart, section
    for tables in ("teams", "issuers", "aliases"):
        assert f"`[[{tables}]]`" in live
