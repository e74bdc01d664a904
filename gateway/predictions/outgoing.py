"""What a create sends upstream, and what the store keeps of it (docs/architecture.md, Invariants 16).

The two differ where the input has secret values: they go upstream from memory, and the store holds their redaction, or
keyed digests while the schema is not known. Only a request that starts a run comes here.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from gateway.domain import input_paths
from gateway.domain import links as rewrite
from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import CreateContext
from gateway.domain.keyed_digest import KeyedDigest
from gateway.domain.records import Kind
from gateway.domain.targets import Target
from gateway.errors import Unprocessable
from gateway.models.rules import secrets
from gateway.models.rules.schema import InputSchema
from gateway.models.schemas import SchemaService
from gateway.predictions.ports.outputs import OutputInputs, StoredFileRefused
from gateway.sharing.identity import Identity

_MAY_HAVE_MANY = 64 * 1024
"""Bytes of an input that can have many thousands of texts, which take time one by one."""


class Outgoing(msgspec.Struct, frozen=True):
    """The body of a create."""

    sent: CreateBody
    """As it goes upstream. Never written anywhere."""
    stored: CreateBody
    """As the intent records it."""
    secrets: tuple[str, ...] = ()
    """Values that upstream's answers must not bring back into records and logs."""
    suspects: Mapping[str, Any] = {}
    """Values that can be secret, by name, where the schema is not known."""


class OutgoingBodies:
    """Prepares bodies of creates."""

    def __init__(self, schemas: SchemaService, outputs: OutputInputs, digest: KeyedDigest) -> None:
        self._schemas = schemas
        self._outputs = outputs
        self._digest = digest

    async def prepare(self, context: CreateContext, identity: Identity) -> Outgoing:
        """Replace links of stored outputs by upstream's, and redact secret values in what is stored.

        A stored file that upstream has no more is uploaded. Raise `Unprocessable` for a file that is lost meanwhile,
        and the errors of uploads.
        """
        body, is_training = context.command.body, context.command.kind is Kind.TRAINING
        if context.outputs:
            links = await self._links(context)
            body = msgspec.structs.replace(body, input=rewrite.replace_addresses(body.input, links))
        schema = identity.schema
        if schema is None:
            schema = await self._schema(context.command.target, must_ask=is_training)
        if schema is None:
            redact = partial(secrets.digest_texts, body.input, self._digest)
        else:
            marked = schema.training_secrets if is_training else schema.secrets
            if not marked:
                return Outgoing(body, body)
            redact = partial(secrets.redact, body.input, marked)
        redacted = redact() if len(body.input) <= _MAY_HAVE_MANY else await asyncio.to_thread(redact)
        if redacted.input is body.input:
            return Outgoing(body, body)
        stored = msgspec.structs.replace(body, input=redacted.input)
        return Outgoing(body, stored, redacted.values, redacted.suspects)

    async def _links(self, context: CreateContext) -> dict[str, str]:
        links = {}
        for text, output in context.outputs.items():
            try:
                links[text] = await self._outputs.upstream_link(context.caller, output)
            except StoredFileRefused as exc:
                path = input_paths.path_in(context.command.body.input, text)
                raise Unprocessable.field(path, str(exc), "not_found") from exc
        return links

    async def _schema(self, target: Target, *, must_ask: bool) -> InputSchema | None:
        """Return the schema of a target that was not needed to identify the request; `None` if it is not known."""
        if target.model is None:
            return None
        described = self._schemas.known(target)
        if described is None and must_ask:
            described = await self._schemas.describe(target)
        return None if described is None else described.schema
