"""Identity: which requests are equal, and why a request is or is not shared (docs/architecture.md, Sharing).

Gives the pure rules of `sharing/rules/determinism.py` and `sharing/rules/fingerprint.py` what has to be looked up: the
model of a bare version id, and the schema. The input is decoded once for its canonical forms.
"""

import msgspec
from msgspec.structs import replace

from gateway.domain.bypass import BypassReason
from gateway.domain.create_request import CreateContext
from gateway.domain.records import Kind, Run
from gateway.domain.targets import Target, TargetKind, target_identity
from gateway.models.rules import secrets
from gateway.models.rules.schema import InputSchema
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.runtime.live import LiveSettings
from gateway.runtime.pauses import LARGE, pause_after
from gateway.sharing.rules import caching, determinism, fingerprint
from gateway.sharing.rules.determinism import NotDeterministic, Proof
from gateway.sharing.rules.external_links import DEFAULT_TEXT_INPUTS
from gateway.sharing.rules.fingerprint import Input
from gateway.sharing.settings import SharingSettings


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests a request is equal to."""

    fingerprint: str | None = None
    """`None`: the request is not shared."""
    provisional: str | None = None
    """Set for a version with a seed: an equal request may be waiting for its model's name."""
    reason: Proof | BypassReason
    ttl_seconds: float = 0.0
    """How long a result is kept for others."""
    schema: InputSchema | None = None
    """The schema of the target, if it was read for this."""

    @property
    def is_shared(self) -> bool:
        """Whether anybody may share the run."""
        return self.fingerprint is not None or self.provisional is not None


class IdentityService:
    """Computes the identity of creates."""

    def __init__(
        self,
        schemas: SchemaService,
        versions: VersionMap,
        settings: LiveSettings[SharingSettings],
        *,
        secret: bytes = b"",
    ) -> None:
        """Take `secret` of the store, by which provisional identities are made."""
        self._schemas = schemas
        self._versions = versions
        self._settings = settings
        self._secret = secret

    async def of(self, context: CreateContext) -> Identity:
        """Identify a create whose target has been named (`named`)."""
        # Read once: a reload may replace the rules before this request is through.
        sharing = self._settings.value
        policy = sharing.policy
        caller, command = context.caller, context.command
        if command.directives.no_store:
            return Identity(reason=BypassReason.NO_STORE)
        if command.kind is Kind.TRAINING:
            return Identity(reason=BypassReason.TRAINING)
        if not policy.enabled:
            return Identity(reason=BypassReason.DISABLED)
        target, model = command.target, command.target.model
        described = None
        if model is not None:
            described = self._schemas.known(target) or await self._schemas.describe(target)
        schema = described.schema if described else None
        input_ = command.body.input
        controls = determinism.read_controls(input_)
        rule = determinism.rule_for(policy.rules, model) if policy.rules else None
        judgement = determinism.judge(
            controls,
            schema,
            policy,
            rule,
            model=model,
            kind=command.kind,
            asserted=command.directives.deterministic,
            may_assert=caller.team.may_assert_deterministic,
            has_secret=schema is not None and bool(schema.secrets) and secrets.are_given(schema.secrets, input_),
        )
        # An equal request may have started while the model of this version was unknown, and have no other identity.
        is_provisional = target.kind is TargetKind.VERSION and determinism.sets_seed(controls, policy.random_seeds)
        if isinstance(judgement, NotDeterministic) and not is_provisional:
            return Identity(reason=judgement.reason, schema=schema)
        scope, provisional = fingerprint.sharing_scope(sharing.share, caller.team.name), None
        try:
            given = Input(input_, context.files, may_link=context.may_link)
            if len(input_) > LARGE:
                await pause_after(input_)
            may_link = context.may_link or (schema is not None and bool(schema.linked_defaults))
            plain = rule.plain_inputs if may_link and rule is not None else DEFAULT_TEXT_INPUTS
            if (
                may_link
                and determinism.depends_on_links(judgement, policy.rules)
                and given.has_external_link(schema, plain, policy.immutable_links)
            ):
                judgement = determinism.with_external_link(
                    asserted=command.directives.deterministic,
                    may_assert=caller.team.may_assert_deterministic,
                )
            if is_provisional:
                provisional = fingerprint.provisional(
                    target_identity(target), given.canonical(None), scope, self._secret
                )
            if isinstance(judgement, NotDeterministic):
                is_waiting = judgement.reason is BypassReason.MODEL_UNKNOWN
                return Identity(provisional=provisional if is_waiting else None, reason=judgement.reason, schema=schema)
            canonical = given.canonical(schema, rule.ignore_inputs if rule is not None else frozenset())
        except ValueError:
            return Identity(reason=BypassReason.INPUT_UNREADABLE, schema=schema)
        if len(canonical) > LARGE:
            await pause_after(canonical)
        identity = described.identity if described else target_identity(target)
        return Identity(
            fingerprint=fingerprint.fingerprint(identity, canonical, scope)
            if schema is not None
            else fingerprint.without_schema(identity, canonical, scope, self._secret),
            provisional=provisional,
            reason=judgement.reason,
            ttl_seconds=sharing.ttl_seconds if rule is None else caching.ttl_of(rule.ttl_seconds, sharing.ttl_seconds),
            schema=schema,
        )

    async def named(self, context: CreateContext) -> CreateContext:
        """Name the model of a bare version id in a create, if the version map knows it."""
        command, target = context.command, context.command.target
        if target.model is not None or target.version is None:
            return context
        model = await self._versions.model_of(target.version)
        if model is None:
            return context
        return replace(context, command=replace(command, target=Target(TargetKind.VERSION, model, target.version)))

    def ttl_of(self, run: Run) -> float | None:
        """Return for how many seconds a finished run can answer other requests; `None` if the run is not shared."""
        if run.fingerprint is None:
            return None
        model = run.target.partition(":")[0]
        sharing = self._settings.value
        rule = determinism.rule_for(sharing.policy.rules, model if "/" in model else None)
        return caching.ttl_of(rule.ttl_seconds if rule else None, sharing.ttl_seconds)
