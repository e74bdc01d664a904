"""Trainings. As recorded, a create response links to /predictions/{id}, and a read to /trainings/{id}."""

from gateway.simulator import problems, render
from gateway.simulator.api.call import Answer, Call
from gateway.simulator.api.predictions import answer, cancel_answer, check_webhook, edge_answer, list_answer
from gateway.simulator.prediction import Prediction
from gateway.simulator.validation import TRAINING_BODY, check


async def create(call: Call) -> Answer:
    """POST /models/{owner}/{name}/versions/{id}/trainings."""
    body = call.checked(TRAINING_BODY)
    ref = f"{call.params['owner']}/{call.params['name']}"
    found = call.world.registry.resolve(f"{ref}:{call.params['version']}", call.account)
    if found is None:
        raise problems.invalid_version()
    destination = call.world.registry.models.get(body["destination"])
    if destination is None or destination.owner != call.account:
        detail = "The specified training destination does not exist"
        raise problems.Problem(404, {"detail": detail, "status": 404})
    model, version = found
    if not version.program.can_train:
        raise problems.unprocessable("Invalid version or not permitted", "The specified version cannot be trained")
    check_webhook(call, body)
    schema = version.program.schema
    wrong = check(body["input"], schema["components"]["schemas"]["TrainingInput"], schema, "input")
    if wrong:
        raise problems.invalid_input(wrong)
    training = call.world.create(call.account, model, version, body, destination=destination.ref, faults=call.faults)
    return edge_answer(render.edge_prediction(training, call.world.links, created=True), 201)


async def get(call: Call) -> Answer:
    """GET /trainings/{id}."""
    training = _find(call)
    if training.reads_to_hide > 0:
        training.reads_to_hide -= 1
        raise problems.not_found()
    return answer(call, training, as_training=True)


async def cancel(call: Call) -> Answer:
    """POST /trainings/{id}/cancel."""
    return cancel_answer(call, _find(call), as_training=True)


async def list_all(call: Call) -> Answer:
    """GET /trainings."""

    def wanted(each: Prediction) -> bool:
        return each.account == call.account and each.kind == "training"

    return list_answer(call, wanted, as_training=True)


def _find(call: Call) -> Prediction:
    training = call.world.find(call.account, call.params["id"])
    if training is None or training.kind != "training":
        raise problems.not_found()
    return training
