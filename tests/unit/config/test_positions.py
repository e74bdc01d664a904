"""Lines of keys: for everything that TOML allows, exactly what `tomllib` finds, each on its line."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.positions import Location, lines

ROOT = Path(__file__).parents[3]

EVERY_FORM = r'''
# a comment with [brackets] and "quotes"
bare = 1 # trailing
"quoted \" key" = 'literal "x"'
'literal key' = "escaped \" and # no comment"
a.b."c d" = true
multi = """
[not.a.table]
key = "no key"  \""" and two quotes: ""
"""
raw = \'\'\'
x = [1, 2
\'\'\'
dates = [1979-05-27T07:32:00-08:00, 07:32:00, 1979-05-27 07:32:00]
array = [ # comment ]
  1, [2, 3], # [
  { x = 1, y.z = [ { w = "}" } ] },
]
empty = []
nothing = {}
inf = -inf
[table]
key = 0xff
[table.sub] # comment
"x" = """a"""
[ spaced . "out" ]
k = 1
[[list]]
name = "one"
[[list.inner]]
n = 1
[[list.inner]]
n = 2
[list.inner.deep]
d = 1
[[list]]
name = "two"
[list.table]
t = 2
'''.replace(r"\'\'\'", "'''")


def walk(value: Any, location: Location = ()) -> Iterator[Location]:
    match value:
        case dict():
            for name, item in value.items():
                yield (*location, name)
                yield from walk(item, (*location, name))
        case list():
            for index, item in enumerate(value):
                yield (*location, index)
                yield from walk(item, (*location, index))


@pytest.mark.parametrize(
    "text",
    ["", EVERY_FORM, *(path.read_text() for path in (ROOT / "config.example.toml", *ROOT.glob("deploy/*.toml")))],
)
def test_every_location_has_a_line(text):
    """Nothing is missed and nothing is invented."""
    assert set(lines(text)) == set(walk(tomllib.loads(text)))


def test_lines_are_those_of_the_keys():
    """Counted from 1; of a table given in parts, the first."""
    found, text = lines(EVERY_FORM), EVERY_FORM.split("\n")
    for location, words in {
        ("bare",): "bare =", ("a", "b", "c d"): "a.b", ("array", 1, 1): "1, [2, 3]", ("array", 2, "y", "z", 0): "{ x",
        ("table",): "[table]", ("table", "sub", "x"): '"x"', ("spaced", "out", "k"): "k = 1",
        ("list", 0, "inner", 1): "[[list.inner]]", ("list", 0, "inner", 1, "deep", "d"): "d = 1",
        ("list", 1): "[[list]]", ("list", 1, "name"): 'name = "two"', ("inf",): "inf",
    }.items():  # fmt: skip
        assert words in text[found[location] - 1], location
    assert found["list", 0] < found["list", 1]
    assert found["list", 0, "inner", 0] < found["list", 0, "inner", 1]


names = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
scalars = st.one_of(
    st.integers(),
    st.booleans(),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8).map(lambda text: ("text", text)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)


def written(value: Any, draw: st.DataObject) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case ("text", str(text)):
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            literal = "'" not in text
            return draw.draw(st.sampled_from([f'"{escaped}"', f'"""{escaped}"""', *([f"'{text}'"] if literal else [])]))
        case list():
            gap = draw.draw(st.sampled_from([", ", ",\n # c ]\n", " ,"]))
            return f"[{gap.join(written(item, draw) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{name} = {written(item, draw)}' for name, item in value.items())}}}"
        case _:
            return str(value)


@given(st.data())
def test_any_document_has_the_locations_that_tomllib_finds(data):
    """Tables, arrays of tables, and values of every kind, nested."""
    parts = []
    for number in range(data.draw(st.integers(0, 4))):
        head = data.draw(st.sampled_from([f"[t{number}]", "[[list]]", f"[list.s{number}]", f'[t{number}."q.r"]']))
        if head.startswith("[list.") and "[[list]]" not in parts:
            continue
        parts.append(head)
        for name, value in data.draw(st.dictionaries(names, values, max_size=3)).items():
            parts.append(f"{name} = {written(value, data)}")
    text = "\n".join(parts)
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(lines(text)) == set(walk(parsed))


def test_deep_nesting_has_no_lines():
    """The config is refused for other reasons; no traceback."""
    assert lines("a = " + "[" * 50_000) == {}
