"""Models: versions, examples, readme and search."""

from gateway.simulator import problems, render
from gateway.simulator.api.call import Answer, Call, decode_quoted, json_answer
from gateway.simulator.api.predictions import read_cursor
from gateway.simulator.catalog import Model, Version
from gateway.simulator.pagination import link, take_page
from gateway.simulator.validation import MODEL_BODY, MODEL_PATCH

PAGE_SIZE = 25


async def list_all(call: Call) -> Answer:
    """GET /models: public models, sorted by creation of the latest version."""
    query = call.query
    by = query.get("sort_by", "latest_version_created_at")
    direction = query.get("sort_direction", "desc")
    if by not in {"latest_version_created_at", "model_created_at"} or direction not in {"asc", "desc"}:
        raise problems.Problem(400, {"detail": "Invalid sort_by or sort_direction"}, django=True)

    models = [each for each in call.world.registry.models.values() if each.visibility == "public"]
    places: dict[str, int] = {}
    taken: set[int] = set()
    for each in models:  # positions in the order must be unique
        place = each.created_us if by == "model_created_at" or each.latest is None else each.latest.created_us
        while place in taken:
            place += 1
        taken.add(place)
        places[each.ref] = place

    def place_of(model: Model) -> int:
        return places[model.ref]

    page = take_page(
        sorted(models, key=place_of), place_of, PAGE_SIZE, read_cursor(query), descending=direction == "desc"
    )
    api = call.world.links.api
    return json_answer(
        {
            "next": link(call.url, query, page.next),
            "previous": link(call.url, query, page.previous),
            "results": [render.model(each, api) for each in page.results],
        }
    )


async def search(call: Call) -> Answer:
    """QUERY /models: a single page of 25."""
    found = call.world.registry.search(decode_quoted(call.body), call.account)[:PAGE_SIZE]
    results = [render.model(model, call.world.links.api) for model, _ in found]
    return json_answer({"next": None, "previous": None, "results": results})


async def create(call: Call) -> Answer:
    """POST /models."""
    body = call.checked(MODEL_BODY)
    world = call.world
    if body["owner"] != call.account:
        raise problems.forbidden("You do not have permission to create a model for this owner.")
    ref = f"{body['owner']}/{body['name']}"
    if ref in world.registry.models:
        raise problems.unprocessable("Model already exists", "A model with that name and owner already exists")
    if body["hardware"] not in {sku for sku, _ in world.hardware}:
        raise problems.unprocessable("Invalid hardware", "The specified hardware does not exist")
    if not world.registry.may_add_model(call.account):
        raise problems.forbidden("You have reached the limit of 1000 models.")
    model = Model(body["owner"], body["name"], world.clock.stamp(), visibility=body["visibility"])
    for name in ("description", "github_url", "paper_url", "license_url", "cover_image_url"):
        setattr(model, name, body.get(name))
    return json_answer(render.model(world.registry.add_model(model), world.links.api), 201)


async def get(call: Call) -> Answer:
    """GET /models/{owner}/{name}."""
    return json_answer(render.model(_model(call), call.world.links.api))


async def update(call: Call) -> Answer:
    """PATCH /models/{owner}/{name}."""
    model = _own(call)
    for name, value in call.checked(MODEL_PATCH).items():
        setattr(model, name, value)
    return json_answer(render.model(model, call.world.links.api))


async def delete(call: Call) -> Answer:
    """DELETE /models/{owner}/{name}: only own private models without versions."""
    model = _own(call)
    if model.visibility != "private":
        raise problems.forbidden("You can only delete private models.")
    if model.versions:
        raise problems.forbidden("You can only delete models that have no versions.")
    del call.world.registry.models[model.ref]
    return Answer(204)


async def examples(call: Call) -> Answer:
    """GET /models/{owner}/{name}/examples."""
    example = render.example(_model(call), call.world.links.api)
    return json_answer({"next": None, "previous": None, "results": [] if example is None else [example]})


async def readme(call: Call) -> Answer:
    """GET /models/{owner}/{name}/readme."""
    model = _model(call)
    if model.readme is None:
        raise problems.django_not_found()
    return Answer(200, model.readme.encode(), "text/plain; charset=utf-8")


async def versions(call: Call) -> Answer:
    """GET /models/{owner}/{name}/versions: newest first."""
    model, query = _model(call), call.query
    page = take_page(model.versions, _created, PAGE_SIZE, read_cursor(query))
    return json_answer(
        {
            "next": link(call.url, query, page.next),
            "previous": link(call.url, query, page.previous),
            "results": [render.version(each) for each in page.results],
        }
    )


async def version(call: Call) -> Answer:
    """GET /models/{owner}/{name}/versions/{id}."""
    return json_answer(render.version(_version(call, _model(call))))


async def delete_version(call: Call) -> Answer:
    """DELETE /models/{owner}/{name}/versions/{id}: only of own private models, if nothing depends on it."""
    model = _own(call)
    found = _version(call, model)
    registry = call.world.registry
    if model.visibility != "private" or any(each.version == found.id for each in registry.deployments.values()):
        raise problems.forbidden("You can only delete versions of private models that nothing depends on.")
    registry.remove_version(model, found)
    call.world.forget_version(found.id)
    return Answer(202)


def _model(call: Call) -> Model:
    model = call.world.registry.visible(f"{call.params['owner']}/{call.params['name']}", call.account)
    if model is None:
        raise problems.django_not_found()
    return model


def _own(call: Call) -> Model:
    model = _model(call)
    if model.owner != call.account:
        raise problems.forbidden("You do not have permission to perform this action.")
    return model


def _version(call: Call, model: Model) -> Version:
    found = next((each for each in model.versions if each.id == call.params["version"]), None)
    if found is None:
        raise problems.django_not_found()
    return found


def _created(version: Version) -> int:
    return version.created_us
