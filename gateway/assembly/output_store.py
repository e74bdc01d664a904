"""Opens the output store."""

import msgspec

from gateway.assembly.base import Base
from gateway.assembly.files import FileParts
from gateway.outputs.eviction import remove_all_copies
from gateway.outputs.inputs import OutputInputs
from gateway.outputs.links import OutputLinks
from gateway.outputs.ports import OutputStore
from gateway.predictions.queries import PredictionService
from gateway.store.objects.urls import open_output_store


class OpenOutputs(msgspec.Struct, frozen=True):
    """An output store that is open, and the links of what is in it."""

    store: OutputStore
    links: OutputLinks
    secret: bytes
    ttl_seconds: float


async def open_outputs(base: Base) -> OpenOutputs | None:
    """Open the output store, if there is one. Raise `StoreUnavailable` if it cannot be opened."""
    settings = base.config.outputs
    if settings.url is None:
        await remove_all_copies(base.store)
        return None
    objects = open_output_store(settings.url)
    await objects.open()
    base.stack.push_async_callback(objects.close)
    secret = await base.secret("output-tickets")
    ttl_seconds = float(settings.ttl_seconds)
    return OpenOutputs(objects, OutputLinks(base.clock, secret=secret, ttl_seconds=ttl_seconds), secret, ttl_seconds)


def build_output_inputs(
    base: Base, opened: OpenOutputs | None, predictions: PredictionService, files: FileParts
) -> OutputInputs:
    """Build what finds stored outputs in the inputs of creates. Without an output store, none is found."""
    inputs = OutputInputs(
        predictions.find,
        files.uploads,
        base.clock,
        store=opened.store if opened is not None else None,
        secret=opened.secret if opened is not None else b"",
        ttl_seconds=opened.ttl_seconds if opened is not None else 0.0,
        upstream_base=str(base.config.upstream.base_url),
    )
    base.stack.push_async_callback(inputs.close)
    return inputs
