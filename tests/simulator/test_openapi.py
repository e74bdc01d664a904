"""The simulator matches the API's OpenAPI document: operations, status, content type and body."""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from gateway.simulator.api.routes import ROUTES
from gateway.simulator.files import sign_download
from tests.support.simulator_api import find

DESCRIPTION = Path(__file__).parents[2].parent / "shared" / "reference" / "replicate-openapi.json"
SDXL = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
pytestmark = pytest.mark.skipif(
    not DESCRIPTION.is_file(), reason="the API's description is not there (it is not ours to copy)"
)


def with_nulls(schema: Any) -> Any:
    """Allow null for any value: real responses contain nulls, but the document rarely says `nullable`."""
    if isinstance(schema, list):
        return [with_nulls(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: with_nulls(each) for name, each in schema.items()}
    if isinstance(changed.get("type"), str):
        changed["type"] = [changed["type"], "null"]
    if isinstance(changed.get("enum"), list):
        changed["enum"] = [*changed["enum"], None]
    if "oneOf" in changed:
        changed["anyOf"] = changed.pop("oneOf")  # `version` is both a string and "hidden"
    return changed


async def walk(api: Any) -> dict[str, list[Any]]:
    """Call every operation successfully; return the responses by operation."""
    answers: dict[str, list[Any]] = {}

    async def ask(operation: str, method: str, path: str, **more: Any) -> Any:
        reply = await api.ask(method, path, **more)
        answers.setdefault(operation, []).append(reply)
        return reply

    upload = aiohttp.FormData()
    upload.add_field("content", b"hello", filename="a.txt", content_type="text/plain")
    file = (await ask("files.create", "POST", "/files", data=upload)).body["id"]
    await ask("files.list", "GET", "/files")
    await ask("files.get", "GET", f"/files/{file}")
    expiry = int(api.simulator.clock.now()) + 60
    signature = sign_download(api.simulator.settings.files_signing_secret, "acme", file, expiry)
    query = {"owner": "acme", "expiry": expiry, "signature": signature}
    await ask("files.download", "GET", f"/files/{file}/download", params=query)
    await ask("files.delete", "DELETE", f"/files/{file}")
    for operation, path in (
        ("account.get", "/account"),
        ("collections.list", "/collections"),
        ("collections.get", "/collections/text-to-image"),
        ("hardware.list", "/hardware"),
        ("search", "/search?query=image+llama&limit=3"),
        ("webhooks.default.secret.get", "/webhooks/default/secret"),
        ("models.list", "/models"),
        ("models.list", "/models?sort_by=model_created_at&sort_direction=asc"),
        ("models.get", "/models/stability-ai/sdxl"),
        ("models.get", "/models/mattt/empty"),
        ("models.examples.list", "/models/acme/painter/examples"),
        ("models.readme.get", "/models/acme/painter/readme"),
        ("models.versions.list", "/models/acme/painter/versions"),
        ("models.versions.get", f"/models/stability-ai/sdxl/versions/{SDXL}"),
        ("deployments.list", "/deployments"),
        ("deployments.get", "/deployments/acme/story-service"),
    ):
        await ask(operation, "GET", path)
    for body in (b"llama", b'"llama"'):
        await ask("models.search", "QUERY", "/models", data=body, headers={"Content-Type": "text/plain"})
    own = {"owner": "acme", "name": "own", "visibility": "private", "hardware": "cpu"}
    await ask("models.create", "POST", "/models", json=own)
    await ask("models.update", "PATCH", "/models/acme/own", json={"description": "mine", "readme": "# Mine"})
    painter = find(api.simulator, "acme/painter")[1].id
    deployment = {
        "name": "d",
        "model": "acme/painter",
        "version": painter,
        "hardware": "cpu",
        "min_instances": 0,
        "max_instances": 1,
    }
    await ask("deployments.create", "POST", "/deployments", json=deployment)
    await ask("deployments.update", "PATCH", "/deployments/acme/d", json={"max_instances": 2})
    await ask("deployments.delete", "DELETE", "/deployments/acme/d")
    text, wait = {"input": {"prompt": "x"}}, {"Prefer": "wait", "Cancel-After": "1m"}
    await ask(
        "models.predictions.create", "POST", "/models/acme/official-storyteller/predictions", json=text, headers=wait
    )
    await ask("deployments.predictions.create", "POST", "/deployments/acme/story-service/predictions", json=text)
    created = await ask(
        "predictions.create", "POST", "/predictions", json={"version": painter, "input": {"width": 16, "height": 16}}
    )
    slow = {"version": find(api.simulator, "acme/slow")[1].id, "input": {"duration": 1000}}
    await ask("predictions.create", "POST", "/predictions", json=slow, headers={"Prefer": "wait=1"})
    await ask("predictions.get", "GET", f"/predictions/{created.body['id']}")
    await api.finish(created.body["id"])
    await ask("predictions.get", "GET", f"/predictions/{created.body['id']}")
    await ask("predictions.list", "GET", "/predictions")
    await ask("predictions.cancel", "POST", f"/predictions/{answers['predictions.create'][1].body['id']}/cancel")
    body = {"destination": "acme/own", "input": {"input_images": "https://example.com/a.zip"}}
    training = await ask("trainings.create", "POST", f"/models/stability-ai/sdxl/versions/{SDXL}/trainings", json=body)
    await api.finish(training.body["id"])
    await ask("trainings.get", "GET", f"/trainings/{training.body['id']}")
    await ask("trainings.list", "GET", "/trainings")
    await ask("trainings.cancel", "POST", f"/trainings/{training.body['id']}/cancel")
    trained = api.simulator.world.registry.models["acme/own"].versions[0].id
    await ask("models.versions.delete", "DELETE", f"/models/acme/own/versions/{trained}")
    await ask("models.delete", "DELETE", "/models/acme/own")
    return answers


async def test_every_operation_matches_the_openapi_document(start):
    """Status, content type and body of all 37 operations."""
    api = await start(speed=50)
    description = json.loads(DESCRIPTION.read_text())
    answers = await walk(api)
    components = with_nulls(description["components"])
    missing, wrong = [], []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            name = operation["operationId"]
            if name not in answers:
                missing.append(f"{method} {path} ({name})")
            for reply in answers.get(name, []):
                documented = operation["responses"].get(str(reply.status))
                if documented is None:
                    wrong.append(f"{name}: {reply.status} is not documented: {reply.raw[:200]!r}")
                    continue
                for content_type, content in documented.get("content", {}).items():
                    if "json" not in content_type:
                        continue
                    assert reply.headers["Content-Type"].startswith(content_type)
                    schema = {**with_nulls(content["schema"]), "components": components}
                    errors = Draft202012Validator(schema).iter_errors(reply.body)
                    wrong += [f"{name}: {error.json_path}: {error.message[:200]}" for error in errors]
    assert missing == []
    assert wrong == []


def test_routes_are_those_of_the_openapi_document():
    """None is missing, and there are no others."""
    description = json.loads(DESCRIPTION.read_text())
    names = {operation["operationId"] for methods in description["paths"].values() for operation in methods.values()}
    assert {route.operation for route in ROUTES} == names

    def shape(path: str) -> str:
        return re.sub(r"\{\w+\}", "{}", path)

    theirs = {(method.upper(), shape(path)) for path, methods in description["paths"].items() for method in methods}
    assert {(route.method, shape(route.path)) for route in ROUTES} == theirs
