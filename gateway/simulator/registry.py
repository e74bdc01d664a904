"""The current models, versions and deployments: built in or created."""

from collections.abc import Sequence

from gateway.simulator import builtin, ids
from gateway.simulator.catalog import Collection, Deployment, Model, Version
from gateway.simulator.clock import SimulatorClock
from gateway.simulator.models.job import Job, ModelError, Program
from gateway.simulator.prediction import Prediction

_MAX_MODELS = 1000  # per account, as in the API


class Registry:
    """Finds models, versions and deployments, and stores created ones."""

    def __init__(self, clock: SimulatorClock) -> None:
        self._clock = clock
        self.models: dict[str, Model] = {}
        self.versions: dict[str, tuple[Model, Version]] = {}
        self.deployments: dict[str, Deployment] = {}
        self.collections: Sequence[Collection] = builtin.COLLECTIONS
        self.reset()

    def reset(self) -> None:
        """Restore the built-in models and deployments."""
        self.models = {}
        self.versions = {}
        for model in builtin.built_in_models():
            self.add_model(model)
        self.deployments = {each.ref: each for each in builtin.built_in_deployments()}

    def add_model(self, model: Model) -> Model:
        """Add a model with its versions."""
        self.models[model.ref] = model
        for version in model.versions:
            self.versions[version.id] = (model, version)
        return model

    def add_version(
        self, ref: str, program: Program, version_id: str | None = None, *, official: bool = False
    ) -> Version:
        """Add a version to a model, and create the model if necessary. Tests use this to register models."""
        model = self.models.get(ref)
        if model is None:
            owner, name = ref.split("/")
            model = self.add_model(Model(owner, name, self._clock.stamp(), official=official))
        made = Version(version_id or ids.version_id(f"{ref} {len(model.versions) + 1}"), self._clock.stamp(), program)
        model.versions.append(made)
        self.versions[made.id] = (model, made)
        return made

    def remove_version(self, model: Model, version: Version) -> None:
        """Remove a version."""
        model.versions.remove(version)
        del self.versions[version.id]

    def resolve(self, text: str, account: str) -> tuple[Model, Version] | None:
        """Resolve the `version` of a create: an id, `owner/name:id`, or `owner/name` of an official model."""
        ref, colon, version_id = text.partition(":")
        if not colon and ids.VERSION_ID.match(text):
            ref, version_id = "", text
        if version_id:
            found = self.versions.get(version_id)
            if found is None or (ref and found[0].ref != ref):
                return None
            return found if _may_use(found[0], account) else None
        model = self.models.get(text)
        if model is None or not model.official or model.latest is None:
            return None
        return model, model.latest

    def visible(self, ref: str, account: str) -> Model | None:
        """Return a model that is visible to the account."""
        model = self.models.get(ref)
        return model if model is not None and _may_use(model, account) else None

    def may_add_model(self, account: str) -> bool:
        """Say whether the account may create another model."""
        return sum(model.owner == account for model in self.models.values()) < _MAX_MODELS

    async def train(self, job: Job, prediction: Prediction) -> None:
        """Run a training: log its epochs, then add a version with the same program to the destination."""
        epochs = int(job.input.get("num_train_epochs") or 5)
        for epoch in range(1, epochs + 1):
            await job.wait(0.4)
            job.log(f"epoch {epoch}/{epochs} loss={1 / epoch:.4f}\n")
        destination = prediction.destination or ""
        if destination not in self.models:
            raise ModelError("The training's destination no longer exists")
        version = self.add_version(
            destination, prediction.version.program, ids.version_id(f"{destination} {prediction.id}")
        )
        weights = job.host("weights.tar", b"simulated weights\n", "application/x-tar")
        job.give({"weights": weights, "version": f"{destination}:{version.id}"})

    def search(self, words: str, account: str) -> list[tuple[Model, float]]:
        """Search models by words. Return them with a score, best first."""
        wanted = words.lower().split()
        found = []
        for model in self.models.values():
            if model.visibility != "public" and not _may_use(model, account):
                continue
            text = f"{model.ref} {model.description or ''} {' '.join(model.tags)}".lower()
            score = sum(text.count(word) * (3.0 if word in model.name else 1.0) for word in wanted)
            if score:
                found.append((model, score))
        return sorted(found, key=lambda pair: (-pair[1], pair[0].ref))


def targets_of(model: Model, version: Version, deployment: str | None = None) -> tuple[str, ...]:
    """Return the names by which faults can select a run."""
    names = (model.ref, version.id, f"{model.ref}:{version.id}")
    return (*names, deployment) if deployment else names


def _may_use(model: Model, account: str) -> bool:
    return model.visibility == "public" or model.owner == account
