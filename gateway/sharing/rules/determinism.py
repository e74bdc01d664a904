"""Decide whether a request is deterministic, with the proof or the reason against it (docs/architecture.md, Sharing).

The config's first rule for the target decides. Without a rule the model's schema does: a seed that is set, or a
temperature of 0, is a proof. Failing both, the caller can assert it, if the team may. A rule `never` overrides that.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum

import msgspec
from msgspec import Raw

from gateway.domain.bypass import BypassReason
from gateway.domain.records import Kind
from gateway.domain.targets import is_named_by
from gateway.models.rules.schema import SEED, InputSchema
from gateway.sharing.rules.external_links import DEFAULT_TEXT_INPUTS, IMMUTABLE, LinkPattern


class Mode(StrEnum):
    """What a rule of the config decides for its targets."""

    ALWAYS = "always"
    SEEDED = "seeded"
    NEVER = "never"


class Rule(msgspec.Struct, frozen=True):
    """One `[[cache.rules]]`. `ttl_seconds` of `None`: that of the cache."""

    model: str
    mode: Mode
    ttl_seconds: float | None = None
    ignore_inputs: frozenset[str] = frozenset()
    text_inputs: frozenset[str] = DEFAULT_TEXT_INPUTS
    """Inputs that are plain text: links in them are not followed by the model."""

    @property
    def plain_inputs(self) -> frozenset[str]:
        """The inputs in which links do not count."""
        return self.text_inputs | self.ignore_inputs


class Policy(msgspec.Struct, frozen=True):
    """Settings that decide whether runs are shared."""

    enabled: bool = True
    rules: tuple[Rule, ...] = ()
    random_seeds: frozenset[int] = frozenset({-1})
    immutable_links: tuple[LinkPattern, ...] = IMMUTABLE


class Proof(StrEnum):
    """What proves a request deterministic."""

    RULE_ALWAYS = "rule-always"
    RULE_SEEDED = "rule-seeded"
    SEED = "seed"
    TEMPERATURE_ZERO = "temperature-zero"
    ASSERTED = "asserted"


class Deterministic(msgspec.Struct, frozen=True):
    """The request may be shared."""

    reason: Proof


class NotDeterministic(msgspec.Struct, frozen=True):
    """The request gets a run of its own."""

    reason: BypassReason


Judgement = Deterministic | NotDeterministic


class Controls(msgspec.Struct):
    """The inputs that decide, as raw JSON. All others are skipped."""

    seed: Raw = Raw(b"null")
    temperature: Raw = Raw(b"null")


_decode_controls = msgspec.json.Decoder(Controls).decode
_decode = msgspec.json.Decoder().decode


def read_controls(input: bytes) -> Controls | None:  # noqa: A002 - Replicate's word
    """Read the inputs that decide; `None` if the input is not readable JSON."""
    try:
        return _decode_controls(input)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def judge(
    controls: Controls | None,
    schema: InputSchema | None,
    policy: Policy,
    rule: Rule | None,
    *,
    model: str | None,
    kind: Kind = Kind.PREDICTION,
    asserted: bool = False,
    may_assert: bool = False,
    has_secret: bool = False,
) -> Judgement:
    """Decide whether a create's input determines its output. `controls` is what `read_controls` returned.

    `model` is `owner/name` of the target's model or deployment, `None` if the model of a bare version is unknown.
    `rule` is what `rule_for` returned for it. `schema` is `None` if it could not be read. `asserted`: the caller sent
    `Gateway-Deterministic: true`. `may_assert`: its team may do so. `has_secret`: the input sets a secret value.
    """
    if not policy.enabled:
        return NotDeterministic(BypassReason.DISABLED)
    if kind is Kind.TRAINING:
        return NotDeterministic(BypassReason.TRAINING)
    if model is None and needs_model(policy.rules):
        return NotDeterministic(BypassReason.MODEL_UNKNOWN)
    if rule is not None and rule.mode is Mode.NEVER:
        return NotDeterministic(BypassReason.RULE_NEVER)
    if has_secret:
        return NotDeterministic(BypassReason.SECRET_INPUT)
    verdict = _by_rule(controls, rule, policy) if rule is not None else _by_schema(controls, schema, policy, model)
    if isinstance(verdict, Proof):
        return Deterministic(verdict)
    return _unless_asserted(verdict, asserted=asserted, may_assert=may_assert)


def depends_on_links(judgement: Judgement, rules: Sequence[Rule]) -> bool:
    """Return whether an external link in the input (`sharing/rules/external_links.py`) changes a judgement.

    A seed and a temperature say nothing about what a link leads to. A rule `always` and an assertion do. While the
    model is unknown, a rule for it can be found later, unless the rules cannot tell models apart.
    """
    match judgement:
        case Deterministic(reason):
            return reason not in (Proof.RULE_ALWAYS, Proof.ASSERTED)
        case NotDeterministic(reason):
            return reason is BypassReason.MODEL_UNKNOWN and not needs_model(rules)


def with_external_link(*, asserted: bool = False, may_assert: bool = False) -> Judgement:
    """Return the judgement in place of one that depends on links, for an input that has an external link."""
    return _unless_asserted(BypassReason.EXTERNAL_LINK, asserted=asserted, may_assert=may_assert)


def _unless_asserted(reason: BypassReason, *, asserted: bool, may_assert: bool) -> Judgement:
    if not asserted:
        return NotDeterministic(reason)
    return Deterministic(Proof.ASSERTED) if may_assert else NotDeterministic(BypassReason.ASSERTION_REFUSED)


def rule_for(rules: Sequence[Rule], model: str | None) -> Rule | None:
    """Return the first rule for a target. While its model is unknown, only rules for everything (`*`) are its own."""
    for rule in rules:
        if is_named_by(rule.model, model):
            return rule
    return None


def needs_model(rules: Sequence[Rule]) -> bool:
    """Whether the model must be known to say which rule comes first."""
    return bool(rules) and rules[0].model != "*"


def sets_seed(controls: Controls | None, random_seeds: Collection[int]) -> bool:
    """Whether an input sets a seed to a real value; whether the model takes one is another question."""
    return _seed_trouble(controls, random_seeds) is None


def _by_rule(controls: Controls | None, rule: Rule, policy: Policy) -> Proof | BypassReason:
    if rule.mode is Mode.ALWAYS:
        return Proof.RULE_ALWAYS
    return _seed_trouble(controls, policy.random_seeds) or Proof.RULE_SEEDED


def _by_schema(
    controls: Controls | None, schema: InputSchema | None, policy: Policy, model: str | None
) -> Proof | BypassReason:
    if schema is None:
        return BypassReason.SCHEMA_UNKNOWN if model else BypassReason.MODEL_UNKNOWN
    has_seed = SEED in schema.inputs
    if not has_seed and not schema.has_temperature:
        return BypassReason.NO_SEED_INPUT
    trouble = _seed_trouble(controls, policy.random_seeds) if has_seed else BypassReason.TEMPERATURE
    if trouble is None:
        return Proof.SEED
    if schema.has_temperature and _is_cold(controls):
        return Proof.TEMPERATURE_ZERO
    return trouble


def _seed_trouble(controls: Controls | None, random_seeds: Collection[int]) -> BypassReason | None:
    """Say what keeps the seed from being a real value; `None` if it is one.

    Upstream reads numbers as doubles on the way, so a seed is random if it is one to a double's precision. Text, flags
    and fractions are what a model may turn into any seed, -1 too.
    """
    if controls is None:
        return BypassReason.INPUT_UNREADABLE
    try:
        seed = _decode(controls.seed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return BypassReason.ODD_SEED
    if seed is None:
        return BypassReason.NO_SEED
    if isinstance(seed, bool) or not isinstance(seed, int | float) or seed != seed // 1:
        return BypassReason.ODD_SEED
    if seed in random_seeds:
        return BypassReason.RANDOM_SEED
    try:
        double = float(seed)
    except OverflowError:
        return None
    for random in random_seeds:
        if double == float(random):
            return BypassReason.RANDOM_SEED
    return None


def _is_cold(controls: Controls | None) -> bool:
    try:
        temperature = None if controls is None else _decode(controls.temperature)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
