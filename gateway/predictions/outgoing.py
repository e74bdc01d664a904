"""What a create sends upstream, and what the store keeps of it (docs/architecture.md, Invariants 16).

The two differ where the input has secret values: they go upstream from memory, and the store holds their redaction, or
keyed digests while the schema is not known. Only a request that starts a run comes here.
"""

import msgspec

from gateway.domain import links as rewrite
from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import CreateContext
from gateway.domain.keyed_digest import KeyedDigest
from gateway.domain.records import Kind
from gateway.models.rules import secrets
from gateway.models.rules.secrets import Redacted
from gateway.models.schemas import SchemaService
from gateway.predictions.ports.outputs import OutputInputs


class Outgoing(msgspec.Struct, frozen=True):
    """The body of a create."""

    sent: CreateBody
    """As it goes upstream. Never written anywhere."""
    stored: CreateBody
    """As the intent records it."""
    secrets: tuple[str, ...] = ()
    """Values that upstream's answers must not bring back into records and logs."""
    suspects: tuple[str, ...] = ()
    """Values that can be secret, where the schema is not known: kept out of refusals."""


class OutgoingBodies:
    """Prepares bodies of creates."""

    def __init__(self, schemas: SchemaService, outputs: OutputInputs, digest: KeyedDigest) -> None:
        self._schemas = schemas
        self._outputs = outputs
        self._digest = digest

    async def prepare(self, context: CreateContext) -> Outgoing:
        """Replace links of stored outputs by upstream's, and redact secret values in what is stored.

        A stored file that upstream has no more is uploaded. Raise `Unprocessable` for a file that is lost meanwhile,
        and the errors of uploads.
        """
        body = context.command.body
        if context.outputs:
            links = {
                text: await self._outputs.upstream_link(context.caller, output)
                for text, output in context.outputs.items()
            }
            body = msgspec.structs.replace(body, input=rewrite.replace_addresses(body.input, links))
        redacted = await self._redacted(context, body.input)
        if redacted.input is body.input:
            return Outgoing(body, body)
        stored = msgspec.structs.replace(body, input=redacted.input)
        return Outgoing(body, stored, redacted.values, redacted.suspects)

    async def _redacted(self, context: CreateContext, given: bytes) -> Redacted:
        target, kind = context.command.target, context.command.kind
        if target.model is None:
            return secrets.digest_texts(given, self._digest)
        described = self._schemas.known(target)
        if described is None and kind is Kind.TRAINING:
            described = await self._schemas.describe(target)
        if described is None or described.schema is None:
            return secrets.digest_texts(given, self._digest)
        schema = described.schema
        return secrets.redact(given, schema.training_secrets if kind is Kind.TRAINING else schema.secrets)
