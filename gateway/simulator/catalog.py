"""Models, versions, deployments and collections."""

from dataclasses import dataclass, field
from typing import Any

from gateway.simulator.models.job import Program


@dataclass
class Version:
    """A version of a model, with its program."""

    id: str
    created_us: int
    program: Program
    cog_version: str = "0.16.9"


@dataclass
class Model:
    """A model. `versions` are sorted, oldest first."""

    owner: str
    name: str
    created_us: int
    description: str | None = None
    official: bool = False
    visibility: str = "public"
    github_url: str | None = None
    paper_url: str | None = None
    license_url: str | None = None
    weights_url: str | None = None
    cover_image_url: str | None = None
    readme: str | None = None
    run_count: int = 0
    tags: tuple[str, ...] = ()
    example: tuple[dict[str, Any], Any] | None = None  # input and output
    versions: list[Version] = field(default_factory=list)

    @property
    def ref(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def latest(self) -> Version | None:
        """The newest version."""
        return self.versions[-1] if self.versions else None


@dataclass
class Deployment:
    """A deployment with its current release."""

    owner: str
    name: str
    model: str
    version: str
    hardware: str
    min_instances: int
    max_instances: int
    created_us: int
    number: int = 1
    last_used_us: int | None = None

    @property
    def ref(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Collection:
    """A named list of models."""

    slug: str
    name: str
    description: str
    full_description: str | None = None
    models: tuple[str, ...] = ()
