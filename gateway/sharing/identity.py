"""Identity: which requests are equal, and why a request is or is not shared (docs/architecture.md, Sharing).

Gives the pure rules of `sharing/rules/determinism.py` and `sharing/rules/fingerprint.py` what has to be looked up: the
model of a bare version id, and the schema. The input is decoded once for its canonical forms, and not at all if the
same bytes were decoded lately: their SHA-256 is remembered with the fingerprint.
"""

from functools import partial
from hashlib import sha256

import msgspec
from cachetools import LRUCache
from msgspec.structs import replace

from gateway.domain.bypass import BypassReason
from gateway.domain.create_request import CreateCommand, CreateContext
from gateway.domain.records import Kind, Run
from gateway.domain.targets import Target, TargetKind, target_identity
from gateway.models.rules import secrets
from gateway.models.rules.schema import InputSchema
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.runtime.live import LiveSettings
from gateway.runtime.pauses import LARGE, off_the_loop, pause_after
from gateway.sharing.rules import caching, determinism, fingerprint
from gateway.sharing.rules.determinism import Deterministic, Judgement, NotDeterministic, Policy, Proof, Rule
from gateway.sharing.rules.external_links import DEFAULT_TEXT_INPUTS
from gateway.sharing.rules.fingerprint import Input
from gateway.sharing.settings import SharingSettings

_NOTHING: frozenset[str] = frozenset()
_REMEMBERED = 5000
"""Number of fingerprints to remember, at about 1 KiB each."""
_LARGEST_REMEMBERED = 256 * 1024
"""Hashing a larger input once more would hold up others."""


class _Question(msgspec.Struct, frozen=True):
    """What the keys of a request depend on, beside its input."""

    target: str
    """Its identity."""
    scope: str
    schema: InputSchema | None
    mark: object
    """That of the schema; `None` for no schema."""
    ignore: frozenset[str]
    is_provisional: bool
    """Whether it has a key for the time in which the model of its version is unknown."""

    def with_input(self, given: bytes) -> tuple[object, ...]:
        """Return what the keys are remembered by; the schema is compared apart."""
        return sha256(given).digest(), self.target, self.scope, self.ignore, self.is_provisional


class _Keys(msgspec.Struct, frozen=True):
    """The keys of a request. They hold for one schema."""

    mark: object
    """That of the schema, which itself would stay in memory with it."""
    fingerprint: str | None
    provisional: str | None


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
        self._remembered: LRUCache[tuple[object, ...], _Keys] = LRUCache(_REMEMBERED)

    async def of(self, context: CreateContext) -> Identity:
        """Identify a create whose target has been named (`named`)."""
        # Read once: a reload may replace the rules before this request is through.
        sharing = self._settings.value
        policy = sharing.policy
        caller, command = context.caller, context.command
        if (bypass := _bypass_of(command, policy)) is not None:
            return Identity(reason=bypass)
        target, model = command.target, command.target.model
        described = None
        if model is not None:
            described = self._schemas.known(target) or await self._schemas.describe(target)
        schema = described.schema if described else None
        input_ = command.body.input
        controls = determinism.read_controls(input_)
        if len(input_) > LARGE:
            await pause_after(input_)
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
        question = _Question(
            described.identity if described else target_identity(target),
            fingerprint.sharing_scope(sharing.share, caller.team.name),
            schema,
            schema.mark if schema is not None else None,
            rule.ignore_inputs if rule is not None else _NOTHING,
            is_provisional,
        )
        may_link = context.may_link or (schema is not None and bool(schema.linked_defaults))
        remembered_by = None
        if not may_link and len(input_) <= _LARGEST_REMEMBERED and isinstance(judgement, Deterministic):
            remembered_by = question.with_input(input_)
        keys = self._remembered.get(remembered_by) if remembered_by is not None else None
        if keys is None or keys.mark is not question.mark:
            try:
                compute = partial(self._compute, context, question, judgement, policy, rule)
                computed = compute() if len(input_) <= LARGE else await off_the_loop(input_, compute)
            except ValueError:
                return Identity(reason=BypassReason.INPUT_UNREADABLE, schema=schema)
            judgement, keys = computed
            if remembered_by is not None:
                self._remembered[remembered_by] = keys
        if isinstance(judgement, NotDeterministic):
            is_waiting = judgement.reason is BypassReason.MODEL_UNKNOWN
            return Identity(
                provisional=keys.provisional if is_waiting else None, reason=judgement.reason, schema=schema
            )
        return Identity(
            fingerprint=keys.fingerprint,
            provisional=keys.provisional,
            reason=judgement.reason,
            ttl_seconds=sharing.ttl_seconds if rule is None else caching.ttl_of(rule.ttl_seconds, sharing.ttl_seconds),
            schema=schema,
        )

    def _compute(
        self, context: CreateContext, question: _Question, judgement: Judgement, policy: Policy, rule: Rule | None
    ) -> tuple[Judgement, _Keys]:
        """Compute the keys of a request, and its judgement if that depends on links in the input.

        Raise `ValueError` for an input that cannot be compared.
        """
        target, scope, schema = question.target, question.scope, question.schema
        given = Input(context.command.body.input, context.files, may_link=context.may_link)
        may_link = context.may_link or (schema is not None and bool(schema.linked_defaults))
        if may_link and determinism.depends_on_links(judgement, policy.rules):
            judgement = _judge_links(judgement, given, schema, policy, rule, context)
        provisional = None
        if question.is_provisional:
            provisional = fingerprint.provisional(target, given.canonical(None), scope, self._secret)
        if isinstance(judgement, NotDeterministic):
            return judgement, _Keys(question.mark, None, provisional)
        canonical = given.canonical(schema, question.ignore)
        if schema is None:
            key = fingerprint.without_schema(target, canonical, scope, self._secret)
        else:
            key = fingerprint.fingerprint(target, canonical, scope)
        return judgement, _Keys(question.mark, key, provisional)

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


def _bypass_of(command: CreateCommand, policy: Policy) -> BypassReason | None:
    """Return what keeps a request from being shared, whatever its input."""
    if command.directives.no_store:
        return BypassReason.NO_STORE
    if command.kind is Kind.TRAINING:
        return BypassReason.TRAINING
    return None if policy.enabled else BypassReason.DISABLED


def _judge_links(
    judgement: Judgement,
    given: Input,
    schema: InputSchema | None,
    policy: Policy,
    rule: Rule | None,
    context: CreateContext,
) -> Judgement:
    """Return a judgement that depends on links after a look at the links in the input."""
    plain = rule.plain_inputs if rule is not None else DEFAULT_TEXT_INPUTS
    if not given.has_external_link(schema, plain, policy.immutable_links):
        return judgement
    return determinism.with_external_link(
        asserted=context.command.directives.deterministic, may_assert=context.caller.team.may_assert_deterministic
    )
