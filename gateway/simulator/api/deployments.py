"""Deployments: create, read, list, update, delete."""

from gateway.simulator import problems, render
from gateway.simulator.accounts import describe
from gateway.simulator.api.call import Answer, Call, json_answer
from gateway.simulator.api.predictions import read_cursor
from gateway.simulator.catalog import Deployment
from gateway.simulator.pagination import link, take_page
from gateway.simulator.validation import DEPLOYMENT_BODY, DEPLOYMENT_PATCH

PAGE_SIZE = 100
_IDLE_SECONDS = 15 * 60  # how long a deployment must be unused before it can be deleted


async def list_all(call: Call) -> Answer:
    """GET /deployments."""
    query = call.query
    mine = sorted(
        (each for each in call.world.registry.deployments.values() if each.owner == call.account), key=_created
    )
    page = take_page(mine, _created, PAGE_SIZE, read_cursor(query))
    return json_answer(
        {
            "next": link(call.url, query, page.next),
            "previous": link(call.url, query, page.previous),
            "results": [render.deployment(each, describe(each.owner)) for each in page.results],
        }
    )


async def create(call: Call) -> Answer:
    """POST /deployments; responds with 200."""
    body = call.checked(DEPLOYMENT_BODY)
    world = call.world
    ref = f"{call.account}/{body['name']}"
    if ref in world.registry.deployments:
        raise problems.unprocessable("Deployment already exists", "A deployment with that name already exists")
    _check(call, body["model"], body["version"], body["hardware"])
    made = Deployment(
        call.account,
        body["name"],
        body["model"],
        body["version"],
        body["hardware"],
        body["min_instances"],
        body["max_instances"],
        world.clock.stamp(),
    )
    world.registry.deployments[ref] = made
    return _answer(made)


async def get(call: Call) -> Answer:
    """GET /deployments/{owner}/{name}."""
    return _answer(_find(call))


async def update(call: Call) -> Answer:
    """PATCH /deployments/{owner}/{name}: a new release."""
    deployment = _find(call)
    body = call.checked(DEPLOYMENT_PATCH)
    _check(call, deployment.model, body.get("version", deployment.version), body.get("hardware", deployment.hardware))
    for name, value in body.items():
        if name in {"version", "hardware", "min_instances", "max_instances"}:
            setattr(deployment, name, value)
    deployment.number += 1
    deployment.created_us = call.world.clock.stamp()
    return _answer(deployment)


async def delete(call: Call) -> Answer:
    """DELETE /deployments/{owner}/{name}: only if unused for a while."""
    deployment = _find(call)
    used = deployment.last_used_us
    if used is not None and used / 1_000_000 + _IDLE_SECONDS > call.world.clock.now():
        raise problems.forbidden(
            "Deployments must be offline and unused for at least 15 minutes before they can be deleted."
        )
    del call.world.registry.deployments[deployment.ref]
    return Answer(204)


def _find(call: Call) -> Deployment:
    deployment = call.world.registry.deployments.get(f"{call.params['owner']}/{call.params['name']}")
    if deployment is None or deployment.owner != call.account:
        raise problems.django_not_found()
    return deployment


def _check(call: Call, model: str, version: str, hardware: str) -> None:
    if call.world.registry.resolve(f"{model}:{version}", call.account) is None:
        raise problems.invalid_version()
    if hardware not in {sku for sku, _ in call.world.hardware}:
        raise problems.unprocessable("Invalid hardware", "The specified hardware does not exist")


def _answer(deployment: Deployment) -> Answer:
    return json_answer(render.deployment(deployment, describe(deployment.owner)))


def _created(deployment: Deployment) -> int:
    return deployment.created_us
