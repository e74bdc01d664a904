"""Create OpenAPI schemas like Cog: `Input` and `Output` as components, inputs ordered by `x-order`."""

from typing import Any

_STATUS = ["starting", "processing", "succeeded", "canceled", "failed"]

TEXT_STREAM: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string"},
    "title": "Output",
    "x-cog-array-type": "iterator",
    "x-cog-array-display": "concatenate",
}
FILE_STREAM: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "format": "uri"},
    "title": "Output",
    "x-cog-array-type": "iterator",
}
FILES: dict[str, Any] = {"type": "array", "items": {"type": "string", "format": "uri"}, "title": "Output"}
FILE: dict[str, Any] = {"type": "string", "title": "Output", "format": "uri"}
TEXT: dict[str, Any] = {"type": "string", "title": "Output"}
OBJECT: dict[str, Any] = {"type": "object", "title": "Output"}


def field(kind: str, description: str, **more: Any) -> dict[str, Any]:
    """Describe an input. A `default` makes it optional. `model_schema` consumes the key `required`."""
    return {"type": kind, "description": description, **more}


def seed_field() -> dict[str, Any]:
    """Describe a seed input."""
    return field("integer", "Random seed. Leave blank to randomize the seed")


def secret_field(description: str, **more: Any) -> dict[str, Any]:
    """Describe a secret input, like Cog's `Secret`."""
    return field("string", description, format="password", writeOnly=True, **{"x-cog-secret": True}, **more)


def model_schema(
    fields: dict[str, dict[str, Any]], output: dict[str, Any], training: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the OpenAPI document of a version."""
    schemas: dict[str, Any] = {}
    schemas["Input"] = _input("Input", fields, schemas)
    schemas["Output"] = output
    schemas["Status"] = {"enum": _STATUS, "type": "string", "title": "Status", "description": "An enumeration."}
    schemas["PredictionRequest"] = _request("PredictionRequest", "#/components/schemas/Input")
    schemas["PredictionResponse"] = _response(
        "PredictionResponse", "#/components/schemas/Input", "#/components/schemas/Output"
    )
    if training is not None:
        schemas["TrainingInput"] = _input("TrainingInput", training, schemas)
        schemas["TrainingOutput"] = {
            "type": "object",
            "title": "TrainingOutput",
            "required": ["weights"],
            "properties": {"weights": {"type": "string", "title": "Weights", "format": "uri"}},
        }
    return {
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {
            "/": {
                "get": {
                    "summary": "Root",
                    "responses": {"200": _answer({"title": "Response Root  Get"})},
                    "operationId": "root__get",
                }
            },
            "/predictions": {
                "post": {
                    "summary": "Predict",
                    "responses": {"200": _answer({"$ref": "#/components/schemas/PredictionResponse"})},
                    "description": "Run a single prediction on the model",
                    "operationId": "predict_predictions_post",
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionRequest"}}}
                    },
                }
            },
        },
        "openapi": "3.0.2",
        "components": {"schemas": schemas},
    }


def _input(title: str, fields: dict[str, dict[str, Any]], schemas: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    for order, (name, given) in enumerate(fields.items()):
        described = {**given}
        if described.pop("required", False):
            required.append(name)
        if "enum" in described:  # Cog defines choices separately and refers to them
            schemas[name] = {
                "enum": described.pop("enum"),
                "type": described.pop("type"),
                "title": name,
                "description": "An enumeration.",
            }
            properties[name] = {"allOf": [{"$ref": f"#/components/schemas/{name}"}], **described, "x-order": order}
        else:
            properties[name] = {"title": name.replace("_", " ").title(), **described, "x-order": order}
    document: dict[str, Any] = {"type": "object", "title": title, "properties": properties}
    return {**document, "required": required} if required else document


def _request(title: str, input_ref: str) -> dict[str, Any]:
    return {
        "type": "object",
        "title": title,
        "properties": {
            "id": {"type": "string", "title": "Id"},
            "input": {"$ref": input_ref},
            "webhook": {"type": "string", "title": "Webhook", "format": "uri", "maxLength": 65536, "minLength": 1},
            "created_at": {"type": "string", "title": "Created At", "format": "date-time"},
        },
    }


def _response(title: str, input_ref: str, output_ref: str) -> dict[str, Any]:
    return {
        "type": "object",
        "title": title,
        "properties": {
            "id": {"type": "string", "title": "Id"},
            "logs": {"type": "string", "title": "Logs", "default": ""},
            "error": {"type": "string", "title": "Error"},
            "input": {"$ref": input_ref},
            "output": {"$ref": output_ref},
            "status": {"$ref": "#/components/schemas/Status"},
            "metrics": {"type": "object", "title": "Metrics"},
        },
    }


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}, "description": "Successful Response"}
