"""Hostile inputs: texts and JSON values that are cheap to send and may be dear to read.

Each kind is a function from a size to an input of about that many characters or bytes.
"""

import base64
import gzip
import re
from collections.abc import Callable

import pytest

Text = Callable[[int], str]
Value = Callable[[int], bytes]

_SURROGATE = re.compile("[\ud800-\udfff]")

ABOVE, BELOW = "\u0301", "\u0327"
"""Combining marks of two classes. Sorting a run of them (Unicode's canonical ordering) takes quadratic time."""


def marks(n: int) -> str:
    """Return marks in the worst order: those that the standard sorts last come first."""
    return ABOVE * (n // 2) + BELOW * (n // 2)


TEXTS: dict[str, Text] = {
    "letters": lambda n: "x" * n,
    "digits": lambda n: "9" * n,
    "zeros": lambda n: "0" * n,
    "spaces": lambda n: " " * n + "x",
    "line ends": lambda n: "\r\n" * (n // 2),
    "commas": lambda n: "," * n,
    "list members": lambda n: "a=b, " * (n // 5),
    "equals signs": lambda n: "=" * n,
    "an open quote": lambda n: 'a="' + "\\" * n,
    "quotes": lambda n: '"' * n,
    "entity tags": lambda n: 'W/"a", ' * (n // 7),
    "parameters": lambda n: "text/plain" + ";a=b" * (n // 4),
    "slashes": lambda n: "https://a" + "/" * n,
    "climbing": lambda n: "https://a/v1/files" + "/.." * (n // 3),
    "percent slashes": lambda n: "https://a/v1/files/" + "%2f" * (n // 3),
    "many file links": lambda n: "https://a/v1/files/abcdefgh" * (n // 27),
    "colons": lambda n: "http://a" + ":" * n,
    "at signs": lambda n: "https://" + "a@" * (n // 2) + "b/",
    "an open bracket": lambda n: "https://[" + "f:" * (n // 2),
    "dots": lambda n: "https://" + "." * n + "/v1/files/abcdefgh",
    "labels": lambda n: "https://" + "a." * (n // 2) + "com/v1/files/abcdefgh",
    "stars": lambda n: "*a" * (n // 2) + "/" + "*a" * (n // 2),
    "combining marks": lambda n: "https://a" + marks(n) + "/v1/files/abcdefghijklmnop",
    "combining marks in a path": lambda n: "https://a/v1/" + marks(n),
    "lone surrogates": lambda n: "\ud800" * n,
    "letters that grow": lambda n: "https://" + "\u0130\ufb03" * (n // 2) + "/",
    "data URI header": lambda n: "data:text/plain" + ";a=b" * (n // 4) + ",x",
    "many data URI headers": lambda n: "data:a/b;" * (n // 9),
    "base64": lambda n: "data:;base64," + "AAAA" * (n // 4),
    "folded base64": lambda n: "data:;base64," + "AAAA\r\n" * (n // 6),
    "escaped data": lambda n: "data:," + "%41" * (n // 3),
    "keys": lambda n: "rgw_" * (n // 4),
    "tokens": lambda n: "r8_" + "a." * (n // 2),
    "prose": lambda n: "Once upon a time, there was. " * (n // 29),
}
"""By what they consist of."""


def string(text: str) -> bytes:
    """Write a JSON string, lone surrogates as escapes."""
    if _SURROGATE.search(text):
        escaped = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    else:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")
    return f'"{escaped}"'.encode()


def array(item: bytes, n: int) -> bytes:
    """Repeat an item until the array has about `n` bytes."""
    return b"[" + b",".join([item] * max(1, n // (len(item) + 1))) + b"]"


def keys(n: int) -> bytes:
    """Write an object of many keys."""
    return b"{" + b",".join(b'"%x":0' % number for number in range(max(1, n // 10))) + b"}"


def nested(n: int, opening: bytes, closing: bytes, core: bytes = b"0") -> bytes:
    """Nest as deep as `n` bytes allow."""
    depth = max(1, n // (len(opening) + len(closing)))
    return opening * depth + core + closing * depth


def deep_and_wide(n: int) -> bytes:
    """Write a wide array at the bottom of an object that is nested under long keys."""
    name = b"k" * 60
    depth = min(400, max(1, n // 200))
    return (b'{"%b":' % name) * depth + array(b'"x"', n) + b"}" * depth


VALUES: dict[str, Value] = {
    "a long string": lambda n: string("x" * n),
    "commas in a string": lambda n: string("," * n),
    "brackets in a string": lambda n: string("[{" * (n // 2)),
    "backslashes in a string": lambda n: string("\\" * (n // 2)),
    "line ends in a string": lambda n: string("\n" * (n // 2)),
    "escapes in a string": lambda n: b'"' + b"\\u0041" * (n // 6) + b'"',
    "lone surrogates in a string": lambda n: b'"' + b"\\ud800" * (n // 6) + b'"',
    "various lone surrogates": lambda n: b'"' + b"".join(b"\\u%x" % (0xD800 + i % 2048) for i in range(n // 6)) + b'"',
    "pairs of surrogates": lambda n: b'"' + b"\\ud83d\\ude00" * (n // 12) + b'"',
    "combining marks in a host": lambda n: string(TEXTS["combining marks"](n)),
    "combining marks, escaped": lambda n: (
        b'"http://a' + b"\\u0301" * (n // 12) + b"\\u0327" * (n // 12) + b'/v1/files/abcdefghijklmnop"'
    ),
    "many hosts with marks": lambda n: array(string("http://a" + marks(400) + "/v1/files/abcdefghijklmnop"), n),
    "percent slashes in a link": lambda n: string(TEXTS["percent slashes"](n)),
    "many short links": lambda n: array(b'"http://a"', n),
    "many file links": lambda n: array(b'"http://a/v1/files/abcdefghijklmnop"', n),
    "many output links": lambda n: array(b'"https://replicate.delivery/x/out-0.png"', n),
    "many small strings": lambda n: array(b'"x"', n),
    "many numbers": lambda n: array(b"1", n),
    "many empty objects": lambda n: array(b"{}", n),
    "many keys": keys,
    "one key again and again": lambda n: b"{" + b",".join([b'"k":0'] * max(1, n // 6)) + b"}",
    "nested arrays": lambda n: nested(n, b"[", b"]"),
    "nested objects": lambda n: nested(n, b'{"a":', b"}"),
    "nested arrays, not closed": lambda n: b"[" * n,
    "deep and wide": deep_and_wide,
    "an integer of many digits": lambda n: b"9" * n,
    "a fraction of many digits": lambda n: b"0." + b"9" * n,
    "a large exponent": lambda n: b"1e" + b"9" * n,
    "many large exponents": lambda n: array(b"1e999999", n),
    "a data URI": lambda n: string(TEXTS["base64"](n)),
    "a folded data URI": lambda n: string(TEXTS["folded base64"](n)),
    "many data URIs": lambda n: array(b'"data:text/plain;base64,aGVsbG8="', n),
    "data URIs with long headers": lambda n: array(string("data:a/b" + ";a=b" * 250), n),
    "white space": lambda n: b" " * n + b"0",
}
"""Values of JSON, by what they consist of."""


def long_unless(is_sample: bool) -> list[pytest.MarkDecorator]:
    """Return the marks of a row that `make test` runs only as a sample of its kind."""
    return [] if is_sample else [pytest.mark.long]


def bomb(body: bytes) -> bytes:
    """Compress a body as far as it goes."""
    return gzip.compress(body, 9)


def data_uri(size: int, seed: int) -> str:
    """Write a file of that many random-looking bytes, another one for each seed."""
    block = seed.to_bytes(8, "big") * 128
    return "data:application/octet-stream;base64," + base64.b64encode(block * (size // len(block))).decode()
