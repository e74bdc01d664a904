"""Rules of the tests' own layout."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_no_test_imports_a_test_file_or_a_conftest():
    """What tests share is in tests/support."""
    found = []
    for path in TESTS.rglob("*.py"):
        if "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                last = name.rpartition(".")[2]
                if name.startswith("tests.") and (last.startswith("test_") or last == "conftest"):
                    found.append(f"{path.relative_to(TESTS)}: {name}")
    assert not found
