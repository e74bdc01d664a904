"""What predictions ask of stored outputs."""

from collections.abc import Mapping
from typing import Protocol

from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import LinkedOutput
from gateway.domain.records import PredictionView
from gateway.domain.teams import Caller


class CopyLinks(Protocol):
    """Links of stored copies, which replace upstream's links when those have expired."""

    def are_shown(self, view: PredictionView) -> bool:
        """Say whether a prediction shows links of copies now."""
        ...

    def of(self, view: PredictionView, base: str) -> Mapping[str, str]:
        """Map upstream's links in a prediction to links of copies below the base URL `base`."""
        ...


class StoredFileRefused(Exception):
    """A stored file cannot be given to upstream. The text says why, for the caller."""


class OutputInputs(Protocol):
    """Stored outputs that inputs of creates link to."""

    async def linked(self, caller: Caller, body: CreateBody, own_origins: frozenset[str]) -> Mapping[str, LinkedOutput]:
        """Find the links of stored outputs in an input, by the link as it stands there.

        Raise `Unprocessable`, with the path in the input, for a link of the gateway's that has expired, belongs to
        another team, or was not made by the gateway.
        """
        ...

    async def upstream_link(self, caller: Caller, output: LinkedOutput) -> str:
        """Return a link of upstream's to a stored file: the original one while it lives, else of an upload.

        Raise `StoredFileRefused` if the stored bytes are lost or upstream does not take them, and the errors of
        uploads.
        """
        ...
