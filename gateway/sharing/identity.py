"""Identity: which requests are one, and why a request is or is not shared (docs/architecture.md, Sharing).

Ties the pure rules of `sharing/rules/determinism.py` and `sharing/rules/fingerprint.py` to what has to be looked up for
them: the model of a bare version id, and the schema.
"""

from collections.abc import Mapping

import msgspec

from gateway.domain.bypass import BypassReason
from gateway.domain.cache_directives import Directives
from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import CreateContext
from gateway.domain.records import Kind, Run
from gateway.domain.targets import Target, TargetKind, target_identity
from gateway.domain.teams import Caller
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.sharing.rules import caching, determinism, fingerprint
from gateway.sharing.rules.determinism import NotDeterministic, Policy, Proof


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is the same as."""

    fingerprint: str | None = None
    """`None`: the request is not shared."""
    provisional: str | None = None
    """Set while a bare version's model is unknown, or has only just become known."""
    reason: Proof | BypassReason
    ttl_seconds: float = 0.0
    """How long a result is kept for others."""

    @property
    def is_shared(self) -> bool:
        """Whether anybody may share the run."""
        return self.fingerprint is not None or self.provisional is not None


class _Sharing(msgspec.Struct, frozen=True):
    """By which rules, among whom and for how long results are shared."""

    policy: Policy
    share: str
    ttl_seconds: float


class IdentityService:
    """Says what a create is the same as."""

    def __init__(
        self,
        schemas: SchemaService,
        versions: VersionMap,
        policy: Policy,
        *,
        share: str,
        ttl_seconds: float,
    ) -> None:
        self._schemas = schemas
        self._versions = versions
        self._sharing = _Sharing(policy, share, ttl_seconds)

    def reconfigure(self, policy: Policy, *, share: str, ttl_seconds: float) -> None:
        """Share by other rules, from the next request on."""
        self._sharing = _Sharing(policy, share, ttl_seconds)

    async def of(
        self,
        caller: Caller,
        kind: Kind,
        target: Target,
        body: CreateBody,
        directives: Directives,
        files: Mapping[str, str],
    ) -> Identity:
        """Identify a create. `files` gives the SHA-256 of what the links of its input lead to."""
        # Taken once: others may count before this request is through.
        sharing = self._sharing
        policy = sharing.policy
        if directives.no_store:
            return Identity(reason=BypassReason.NO_STORE)
        if kind is Kind.TRAINING or not policy.enabled:
            return Identity(reason=BypassReason.TRAINING if kind is Kind.TRAINING else BypassReason.DISABLED)
        scope = fingerprint.sharing_scope(sharing.share, caller.team.name)
        target = await self.named(target)
        rules, model = policy.rules, target.model
        described = await self._schemas.describe(target) if model is not None else None
        schema = described.schema if described else None
        judgement = determinism.judge(
            body.input,
            schema,
            policy,
            model=model,
            kind=kind,
            asserted=directives.deterministic,
            may_assert=caller.team.may_assert_deterministic,
        )
        try:
            provisional = _provisional(policy, target, body, files, scope)
            if isinstance(judgement, NotDeterministic):
                waits = provisional if judgement.reason is BypassReason.MODEL_UNKNOWN else None
                return Identity(provisional=waits, reason=judgement.reason)
            ignored = determinism.ignored_inputs(rules, model)
            canonical = fingerprint.canonical(body.input, schema, files, ignored)
        except ValueError:
            return Identity(reason=BypassReason.INPUT_UNREADABLE)
        identity = described.identity if described else target_identity(target)
        rule = determinism.rule_for(rules, model)
        return Identity(
            fingerprint=fingerprint.fingerprint(identity, canonical, scope),
            provisional=provisional,
            reason=judgement.reason,
            ttl_seconds=caching.ttl_of(rule.ttl_seconds if rule else None, sharing.ttl_seconds),
        )

    async def of_request(self, context: CreateContext) -> Identity:
        """Identify a request with what is known by now."""
        command = context.command
        return await self.of(
            context.caller, command.kind, command.target, command.body, command.directives, context.files
        )

    async def named(self, target: Target) -> Target:
        """Name the model of a bare version id, if the map knows it."""
        if target.model is None and target.version is not None:
            model = await self._versions.model_of(target.version)
            return Target(TargetKind.VERSION, model, target.version)
        return target

    def ttl_of(self, run: Run) -> float | None:
        """Return for how many seconds a finished run may answer others; `None` if the run is not shared."""
        if run.fingerprint is None:
            return None
        model = run.target.partition(":")[0]
        rule = determinism.rule_for(self._sharing.policy.rules, model if "/" in model else None)
        return caching.ttl_of(rule.ttl_seconds if rule else None, self._sharing.ttl_seconds)


def _provisional(policy: Policy, target: Target, body: CreateBody, files: Mapping[str, str], scope: str) -> str | None:
    """Return the identity by which equal requests wait for the first one's answer, which names the model."""
    if target.kind is not TargetKind.VERSION or not determinism.sets_seed(body.input, policy.random_seeds):
        return None
    canonical = fingerprint.canonical(body.input, None, files)
    return fingerprint.provisional(target_identity(target), canonical, scope)
