"""Routes for account, hardware, collections, search and the webhook secret."""

from gateway.simulator import builtin, problems, render
from gateway.simulator.accounts import describe
from gateway.simulator.api.call import Answer, Call, json_answer
from gateway.simulator.catalog import Collection, Model

_DEFAULT_RESULTS = 20
_MOST_RESULTS = 50


async def account(call: Call) -> Answer:
    """GET /account."""
    return json_answer(describe(call.account))


async def hardware(call: Call) -> Answer:
    """GET /hardware: a bare list."""
    return json_answer([{"sku": sku, "name": name} for sku, name in call.world.hardware])


async def webhook_secret(call: Call) -> Answer:
    """GET /webhooks/default/secret."""
    return json_answer({"key": call.world.settings.webhook_secret})


async def collections(call: Call) -> Answer:
    """GET /collections."""
    results = [render.collection(each) for each in call.world.registry.collections]
    return json_answer({"next": None, "previous": None, "results": results})


async def collection(call: Call) -> Answer:
    """GET /collections/{slug}, with its models."""
    registry = call.world.registry
    found = next((each for each in registry.collections if each.slug == call.params["slug"]), None)
    if found is None:
        raise problems.django_not_found()
    models = [
        render.model(registry.models[ref], call.world.links.api) for ref in found.models if ref in registry.models
    ]
    return json_answer({**render.collection(found), "full_description": found.full_description, "models": models})


async def search(call: Call) -> Answer:
    """GET /search: models with scores, collections and pages. Needs no token."""
    query = call.query.get("query", "").strip()
    if not query:
        raise problems.Problem(400, {"detail": 'Query parameter "query" is required'}, django=True)
    text = call.query.get("limit", str(_DEFAULT_RESULTS))
    if not text.isdigit() or not 1 <= int(text) <= _MOST_RESULTS:
        detail = f'Query parameter "limit" must be between 1 and {_MOST_RESULTS}'
        raise problems.Problem(400, {"detail": detail}, django=True)
    found = call.world.registry.search(query, call.account)[: int(text)]
    return json_answer(
        {
            "query": query,
            "models": [
                {"model": render.model(model, call.world.links.api), "metadata": _metadata(model, score)}
                for model, score in found
            ],
            "collections": [
                _found(each) for each in call.world.registry.collections if _matches(query, each.name, each.description)
            ],
            "pages": [{"name": name, "href": href} for name, href in builtin.PAGES if _matches(query, name)],
        }
    )


def _metadata(model: Model, score: float) -> dict[str, object]:
    return {"generated_description": f"{model.description}.", "tags": list(model.tags), "score": score}


def _found(each: Collection) -> dict[str, object]:
    return {"name": each.name, "slug": each.slug, "description": each.description, "models": list(each.models)}


def _matches(query: str, *texts: str) -> bool:
    return any(word in text.lower() for word in query.lower().split() for text in texts)
