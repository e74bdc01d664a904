"""Fingerprints of generated requests: equal for every spelling, different for every change."""

import base64
import json
import random
import re
import unicodedata
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.domain import file_content
from gateway.models.rules.schema import Shape
from gateway.sharing.rules.fingerprint import Input
from tests.support.fingerprints import SCHEMA, SHAPES, key


# The meaning of an input, independent of its spelling.
class Int(NamedTuple):
    value: int


class Real(NamedTuple):
    """`digits` times ten to the `power`, as an integer too where the schema says which values are numbers."""

    digits: int
    power: int


class File(NamedTuple):
    data: bytes
    media: str = "image/png"


def real(digits: int, power: int) -> Real:
    while digits and digits % 10 == 0:
        digits, power = digits // 10, power + 1
    return Real(digits, power if digits else 0)


DEFAULTS = {
    "scale": real(75, -1), "steps": real(50, 0), "prompt": "a cat", "points": [real(1, 0), real(25, -1)], "any": None,
}  # fmt: skip
INTS = st.integers() | st.integers(-3, 3) | st.integers(2**53 - 2, 2**53 + 2) | st.integers(2**64 - 2, 2**70)
INTS |= st.builds(lambda a, n: a * 10**n, st.integers(-12, 12), st.integers(0, 40))
REALS = st.builds(real, INTS, st.integers(-25, 25))
TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "1",
        "1.0",
        "null",
        "true",
        "é",
        "e\u0301",
        "data: x",
        '"',
        "\\",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ]
)
FILES = st.builds(File, st.binary(max_size=12), st.sampled_from(["image/png", "text/plain"]))
NAMES = st.sampled_from(["a", "b", "w", "seed", "file", "é", "\x00", "a b"]) | st.text(max_size=3)
ANY = st.recursive(
    st.none() | st.booleans() | st.builds(Int, INTS) | REALS | TEXTS | FILES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
FIELDS = {
    "scale": REALS | st.just(DEFAULTS["scale"]),
    "steps": st.builds(real, INTS, st.just(0)) | st.just(DEFAULTS["steps"]),
    "prompt": TEXTS | st.just("a cat"),
    "image": FILES,
    "any": ANY,
    "points": st.lists(REALS, max_size=4) | st.just(DEFAULTS["points"]),
    "images": st.lists(FILES, max_size=3),
    "box": st.fixed_dictionaries({}, optional={"w": REALS, "label": TEXTS, "z": ANY}),
}
INPUTS = st.fixed_dictionaries({}, optional=FIELDS)
RANDOMS = st.randoms(use_true_random=False)


class Speller:
    """Writes an input as JSON, in one of its many ways."""

    def __init__(self, rnd: random.Random, *, typed: bool = True) -> None:
        self.rnd = rnd
        self.typed = typed
        self.files: dict[str, file_content.FileContent] = {}

    def input(self, value) -> bytes:
        left_out = [
            name
            for name, default in DEFAULTS.items()
            if value.get(name, ...) == default and type(value[name]) is type(default)
        ]
        kept = {
            name: item
            for name, item in value.items()
            if not (self.typed and name in left_out and self.rnd.random() < 0.5)
        }
        return self.value(kept, SHAPES).encode()

    def value(self, value, shape) -> str:
        match value:
            case None | True | False:
                return {None: "null", True: "true", False: "false"}[value]
            case Int(number):
                return str(number)
            case Real():
                return self.number(value, integral=self.typed and isinstance(shape, Shape) and shape.is_number)
            case File(data, media):
                return self.text(self.file(data, media))
            case str():
                return self.text(value)
            case list():
                items = [
                    self.value(item, shape.items if isinstance(shape, Shape) and shape.items else Shape())
                    for item in value
                ]
                return "[" + self.space() + ("," + self.space()).join(items) + "]"
        members = []
        for name, item in self.rnd.sample(sorted(value.items()), len(value)):
            inner = shape.get(name, Shape()) if isinstance(shape, dict) else shape.properties.get(name, Shape())
            if self.rnd.random() < 0.1:
                members.append(f"{self.text(name)}:1")  # written twice: the last counts
            members.append(f"{self.text(name)}{self.space()}:{self.space()}{self.value(item, inner)}")
        return "{" + ",".join(f"{self.space()}{member}{self.space()}" for member in members) + "}"

    def space(self) -> str:
        return self.rnd.choice(["", "", " ", "\n", "\t ", "\r\n"])

    def text(self, text: str) -> str:
        return '"' + "".join(self.character(char) for char in text) + '"'

    def character(self, char: str) -> str:
        if self.rnd.random() < 0.3 or char in '"\\' or ord(char) < 32:
            units = char.encode("utf-16-be")
            pairs = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
            return "".join(self.rnd.choice([f"\\u{unit:04x}", f"\\u{unit:04X}"]) for unit in pairs)
        return "\\/" if char == "/" and self.rnd.random() < 0.5 else char

    def number(self, value: Real, *, integral: bool) -> str:
        digits, power = str(abs(value.digits)), value.power
        sign = "-" if value.digits < 0 else ""
        zeros = self.rnd.randint(0, 3) if value.digits else 0
        digits, power = digits + "0" * zeros, power - zeros
        forms = ["exponent", "point"]
        if -60 < power < 60:
            forms.append("plain")
        if integral and value.power >= 0:
            return (
                sign + str(abs(value.digits) * 10**value.power)
                if self.rnd.random() < 0.4
                else self.number(value, integral=False)
            )
        match self.rnd.choice(forms):
            case "exponent":
                plus = self.rnd.choice(["", "+"]) if power >= 0 else ""
                return f"{sign}{digits}{self.rnd.choice('eE')}{plus}{power}"
            case "point":
                return f"{sign}{digits[0]}.{digits[1:] or '0'}{self.rnd.choice('eE')}{power + len(digits) - 1}"
        if power >= 0:
            return f"{sign}{digits}{'0' * power}.0"
        digits = digits.rjust(-power + 1, "0")
        return f"{sign}{digits[:power]}.{digits[power:]}"

    def file(self, data: bytes, media_type: str) -> str:
        spellings = {"text/plain": ["", "text/plain;charset=utf-8"], "image/png": ["image/png", "IMAGE/PNG;x=y"]}
        media = self.rnd.choice(spellings[media_type])
        match self.rnd.randint(0, 3):
            case 0:
                return f"data:{media};base64,{base64.b64encode(data).decode()}"
            case 1:
                return f"data:{media};base64,{base64.encodebytes(data).decode()}"
            case 2:
                return f"data:{media},{quote(data, safe='')}"
        url = f"https://gateway/v1/files/{self.rnd.getrandbits(64):x}"
        name = {"text/plain": "a.txt", "image/png": "B.PNG"}[media_type]
        self.files[url] = file_content.of_file(sha256(data).hexdigest(), media, name)
        if not media:
            self.files[url] = file_content.of_file(sha256(data).hexdigest(), "text/plain", name)
        return url

    def key(self, value) -> bytes:
        text = self.input(value)
        return Input(text, self.files).canonical(SCHEMA if self.typed else None)


def meaning(value):
    """Return what tells two inputs apart (in Python 1, 1.0 and True are equal)."""
    if isinstance(value, dict):
        return ("object", frozenset((name, meaning(item)) for name, item in value.items()))
    if isinstance(value, list):
        return ("array", tuple(meaning(item) for item in value))
    return (type(value).__name__, value)


def full(value):
    return meaning(DEFAULTS | value)


@given(INPUTS, RANDOMS)
def test_spellings_of_one_request_are_equal(value, rnd):
    """Python, JavaScript and curl spell a request differently, with the file uploaded or inline, and share."""
    one, other = Speller(rnd), Speller(rnd)
    assert one.key(value) == other.key(value)


@given(INPUTS, RANDOMS)
def test_spellings_are_equal_without_a_schema(value, rnd):
    """While a bare version's model is unknown, spellings that need no schema are equal."""
    assert Speller(rnd, typed=False).key(value) == Speller(rnd, typed=False).key(value)


@given(INPUTS, INPUTS, RANDOMS)
def test_requests_are_equal_only_if_they_mean_the_same(one, other, rnd):
    """No request gets the result of another."""
    assert (Speller(rnd).key(one) == Speller(rnd).key(other)) == (full(one) == full(other))


MORE = [
    None,
    True,
    False,
    Int(0),
    Int(1),
    real(1, 0),
    real(0, 0),
    "",
    "0",
    "1",
    [],
    {},
    File(b""),
    "file:",
    real(-1, 0),
]


def mutated(value, rnd: random.Random, *, number: bool = False):
    """Change one thing, somewhere."""
    if isinstance(value, dict) and value and rnd.random() < 0.7:
        name = rnd.choice(sorted(value))
        shape = SHAPES.get(name, Shape())
        return value | {name: mutated(value[name], rnd, number=shape.is_number)}
    if isinstance(value, list) and value and rnd.random() < 0.6:
        at = rnd.randrange(len(value))
        return [*value[:at], mutated(value[at], rnd), *value[at + 1 :]]
    match value:
        case Real(digits, power):
            return rnd.choice(
                [
                    real(digits * 10 + 1, power - 1),
                    real(-digits or 1, power),
                    real(digits, power + 1),
                    real(digits + 1, power),
                ]
            )
        case Int(number_):
            return rnd.choice(
                [Int(number_ + 1), Int(-number_ or 1), Int(number_ * 10 or 1), real(number_, 0), str(number_)]
            )
        case str():
            return rnd.choice(
                [
                    value + " ",
                    " " + value,
                    value + "\x00",
                    value.swapcase(),
                    unicodedata.normalize("NFD", value),
                    value[::-1],
                    None,
                    [value],
                ]
            )
        case File(data, media):
            other = "text/plain" if media == "image/png" else "image/png"
            made = [File(data + b"\x00", media), File(data[1:], media), File(data[::-1], media), File(data, other)]
            return rnd.choice([*made, sha256(data).hexdigest()])
        case list():
            return rnd.choice([value[1:], value[::-1], [*value, None], [value], [*value, *value], {"0": value}])
        case dict():
            return rnd.choice(
                [
                    dict(list(value.items())[1:]),
                    value | {"extra": rnd.choice(MORE)},
                    {f"{name}_": item for name, item in value.items()},
                ]
            )
    return rnd.choice([item for item in MORE if type(item) is not type(value) or item != value])


@given(INPUTS, RANDOMS)
def test_any_single_change_makes_requests_unequal(value, rnd):
    """One digit, one accent, one byte of a file, one level of brackets: another picture."""
    changed = mutated(value, rnd)
    assume(isinstance(changed, dict))
    for name, shape in SHAPES.items():  # where the schema tells numbers, an integer is one however it is written
        if isinstance(changed.get(name), Int) and shape.is_number:
            changed[name] = real(changed[name].value, 0)
        if isinstance(changed.get(name), File) and shape.is_text:
            del changed[name]
    box = changed.get("box")
    if isinstance(box, dict) and isinstance(box.get("w"), Int):
        box["w"] = real(box["w"].value, 0)
    if isinstance(changed.get("points"), list):
        changed["points"] = [real(item.value, 0) if isinstance(item, Int) else item for item in changed["points"]]
    assert (Speller(rnd).key(value) == Speller(rnd).key(changed)) == (full(value) == full(changed))


DIGEST = sha256(b"secret").hexdigest()
IMITATIONS = st.sampled_from(
    [
        f"file:{DIGEST}",
        DIGEST,
        f'"file:{DIGEST}"',
        f'",file:{DIGEST},"',
        f"\\u0066ile:{DIGEST}",
        f"data:file:{DIGEST}",
        "data:,",
    ]
)
FORGERIES = st.recursive(
    IMITATIONS | TEXTS | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(IMITATIONS | st.sampled_from(["file", "sha256"]), inner, max_size=3)
    ),
)


@given(FORGERIES)
@example({"file": DIGEST})
@example([f"file:{DIGEST}"])
def test_no_text_or_object_can_imitate_a_file(value):
    """Knowing only the hash of somebody's picture is not enough to get what was made of it."""
    assume(value != "data:,")
    forged = key(json.dumps({"image": value, "any": value}))
    assert forged != key(json.dumps({"image": "data:,secret", "any": "data:,secret"}))
    outside = re.sub(rb'"(?:[^"\\]|\\.)*"', b'""', forged)
    assert DIGEST.encode() not in outside


@given(ANY, RANDOMS)
def test_only_files_and_numbers_are_unquoted(value, rnd):
    """This prevents forgeries: the canonical form has JSON's tokens, numbers and file tokens."""
    outside = re.sub(rb'"(?:[^"\\]|\\.)*"', b"T", Speller(rnd).key({"any": value}))
    assert re.fullmatch(rb"(?:[{}\[\]:,T]|null|true|false|-?\d+(?:e-?\d+)?|file:\[T,T,T\])*", outside)
