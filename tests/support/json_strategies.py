"""JSON as strategies: values, and bytes in spellings that a careful encoder would not choose."""

import json

from hypothesis import strategies as st

NUMBERS = st.sampled_from(
    ["0", "-0", "3e-06", "1E+2", str(2**70), "0.1000000000000000055", "1e400", "-1.50", "12345678901234567890.5"]
)
TEXTS = st.sampled_from(
    [r"\u003cb\u003e\u0026", r"\/", r"a\\b", r"\"", r"\ud83d\ude00", r"\ud83d", "é", "😀", "", r"\u0000", r"\\ud83d",
     "https://api.replicate.com/v1/predictions/x", "null", " x "]
).map(lambda text: f'"{text}"')  # fmt: skip
WORDS = st.sampled_from(["a", "b", r"\u0061", "urls", "id", "next", "get"])
SPACE = st.sampled_from(["", "", " ", "\n\t"])


def _array(items: list[str], space: str) -> str:
    return f"[{space}{f'{space},'.join(items)}]"


def _object(items: list[tuple[str, str]], space: str) -> str:
    return "{" + f"{space},".join(f'{space}"{name}"{space}:{space}{value}' for name, value in items) + space + "}"


# One JSON value as text, spelled in any way that is allowed.
SPELLED = st.recursive(
    NUMBERS | TEXTS | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.builds(_array, st.lists(inner, max_size=3), SPACE)
        | st.builds(_object, st.lists(st.tuples(WORDS, inner), max_size=3), SPACE)
    ),
    max_leaves=6,
)

# Any value that Python can write as JSON.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def dumps(value: object) -> bytes:
    """Write a value as compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


SPECIAL_TEXTS = st.text(st.sampled_from('[]{},:"\\ hatp:/\n\tdé😀'), max_size=12)
"""Short texts of characters that mean something in JSON."""

LINKED_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | SPECIAL_TEXTS
    | st.sampled_from(["http://a", " HTTPS:/b", "data:,x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SPECIAL_TEXTS, inner, max_size=4),
    max_leaves=30,
)
"""Values with links and special characters."""
