"""A gateway without stored outputs, for tests of creates."""

from collections.abc import Mapping

from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import LinkedOutput
from gateway.domain.teams import Caller


class NoOutputs:
    """Finds no stored outputs in inputs."""

    async def linked(self, caller: Caller, body: CreateBody, own_origins: frozenset[str]) -> Mapping[str, LinkedOutput]:
        return {}

    async def upstream_link(self, caller: Caller, output: LinkedOutput) -> str:
        raise AssertionError("no stored output was found")
