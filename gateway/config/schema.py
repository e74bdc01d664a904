"""The JSON Schema of the config, for editors: completion, descriptions, and most of what `gateway check` finds.

It is of draft 7, which editors of TOML know. What depends on several settings only `gateway check` finds.
"""

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from gateway.config.model import Config

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_TITLE: Final = "config.toml of replicate-gateway"
_DESCRIPTION: Final = "All settings. `gateway check` also finds what depends on several of them."


def schema() -> dict[str, Any]:
    """Return the schema of a config file."""
    made = Config.model_json_schema(ref_template="#/definitions/{model}", schema_generator=_OfToml)
    definitions = made.pop("$defs")
    head = {"$schema": _DRAFT, "title": _TITLE}
    return {**head, **_plain(made), "description": _DESCRIPTION, "definitions": _plain(definitions)}


class _OfToml(GenerateJsonSchema):
    """TOML has no null: a setting that may be left out has the schema of its value, and no default."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default", ...) is None:
            del made["default"]
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def _plain(value: Any) -> Any:
    """Put a reference with other words beside it into a list of its own: draft 7 reads nothing beside `$ref`."""
    match value:
        case {"$ref": reference, **words} if words:
            return {"allOf": [{"$ref": reference}], **words}
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case _:
            return value
