"""A schema with an input of each kind, and fingerprints of its requests."""

from collections.abc import Iterable, Mapping

from gateway.domain.file_content import FileContent
from gateway.models.rules.schema import InputSchema, Shape
from gateway.sharing.rules.fingerprint import Input

NUMBER, INTEGER = Shape(frozenset({"number"})), Shape(frozenset({"integer"}))
TEXT, FILE = Shape(frozenset({"string"})), Shape(frozenset({"string"}), is_file=True)
SHAPES = {
    "scale": NUMBER,
    "steps": INTEGER,
    "prompt": TEXT,
    "image": FILE,
    "any": Shape(),
    "points": Shape(frozenset({"array"}), items=NUMBER),
    "images": Shape(frozenset({"array"}), items=FILE),
    "box": Shape(frozenset({"object"}), properties={"w": NUMBER, "label": TEXT}),
}
SCHEMA = InputSchema(SHAPES, defaults=b'{"scale":7.50,"steps":50,"prompt":"a \\u0063at","points":[1,2.5],"any":null}')


def key(
    text: str | bytes,
    schema: InputSchema | None = SCHEMA,
    files: Mapping[str, FileContent] | None = None,
    ignore: Iterable[str] = (),
) -> bytes:
    return Input(text.encode() if isinstance(text, str) else text, files or {}).canonical(schema, frozenset(ignore))
