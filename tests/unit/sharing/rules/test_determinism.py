"""What proves a request deterministic, and the reason that is given when nothing does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.bypass import BypassReason
from gateway.domain.records import Kind
from gateway.models.rules.schema import InputSchema, Shape
from gateway.sharing.rules.determinism import (
    Deterministic,
    Mode,
    NotDeterministic,
    Policy,
    Proof,
    Rule,
    judge,
    needs_model,
    read_controls,
    rule_for,
    sets_seed,
)

ANY = Shape()
SEEDED = InputSchema({"seed": ANY, "prompt": ANY}, defaults=b'{"seed":42}')
CHATTY = InputSchema({"temperature": ANY, "prompt": ANY}, defaults=b'{"temperature":0}')
BOTH = InputSchema({"temperature": ANY, "seed": ANY})
NEITHER = InputSchema({"prompt": ANY})
ALWAYS, NEVER, BY_SEED = Rule("acme/toy", Mode.ALWAYS), Rule("acme/toy", Mode.NEVER), Rule("acme/toy", Mode.SEEDED)


def verdict(text, schema=SEEDED, *rules, model="acme/toy", seeds=(-1,), **more):
    policy = Policy(rules=tuple(rules), random_seeds=frozenset(seeds))
    return judge(read_controls(text.encode()), schema, policy, rule_for(rules, model), model=model, **more).reason


@pytest.mark.parametrize("seed", ["0", "1", "42", "4.2e1", "42.0", "-2", "1180591620717411303424", "1e30", "-0.0"])
def test_seed_proves_determinism(seed):
    """Seven people who request one picture with seed 42 pay for one."""
    assert verdict(f'{{"prompt":"a cat","seed":{seed}}}') is Proof.SEED
    assert sets_seed(read_controls(f'{{"seed":{seed}}}'.encode()), {-1})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", BypassReason.NO_SEED),
        ('{"prompt":"seed"}', BypassReason.NO_SEED),
        ('{"seed":null}', BypassReason.NO_SEED),
        ('{"Seed":1}', BypassReason.NO_SEED),
        ('{"options":{"seed":1}}', BypassReason.NO_SEED),
        ('{"seed":-1}', BypassReason.RANDOM_SEED),
        ('{"seed":-1.0}', BypassReason.RANDOM_SEED),
        ('{"seed":-1e0}', BypassReason.RANDOM_SEED),
        ('{"seed":-10E-1}', BypassReason.RANDOM_SEED),
        ('{"seed":-1.00000000000000000001}', BypassReason.RANDOM_SEED),
        ('{"seed":1,"seed":-1}', BypassReason.RANDOM_SEED),
        ('{"seed":1,"s\\u0065ed":-1}', BypassReason.RANDOM_SEED),
        ('{"seed":-1.5}', BypassReason.ODD_SEED),
        ('{"seed":"42"}', BypassReason.ODD_SEED),
        ('{"seed":"-1"}', BypassReason.ODD_SEED),
        ('{"seed":""}', BypassReason.ODD_SEED),
        ('{"seed":true}', BypassReason.ODD_SEED),
        ('{"seed":false}', BypassReason.ODD_SEED),
        ('{"seed":[42]}', BypassReason.ODD_SEED),
        ('{"seed":{}}', BypassReason.ODD_SEED),
        ('{"seed":1e400}', BypassReason.ODD_SEED),
        ('{"seed":' + "1" * 5000 + "}", BypassReason.ODD_SEED),
        ("[1]", BypassReason.INPUT_UNREADABLE),
        ("{", BypassReason.INPUT_UNREADABLE),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", BypassReason.INPUT_UNREADABLE),
    ],
)
def test_random_seed_proves_nothing(text, reason):
    """A request for a random picture gets a new one each time, however -1 is written."""
    assert verdict(text) is reason
    assert verdict(text, None, BY_SEED) is reason
    assert not sets_seed(read_controls(text.encode()), {-1})


def test_values_that_mean_a_random_seed_are_configurable():
    """Some models take 0, or the largest number, for a random seed."""
    assert verdict('{"seed":0}', seeds=(-1, 0)) is BypassReason.RANDOM_SEED
    assert verdict('{"seed":-0.0}', seeds=(-1, 0)) is BypassReason.RANDOM_SEED
    assert verdict('{"seed":9223372036854775807}', seeds=(2**63 - 1,)) is BypassReason.RANDOM_SEED
    assert verdict('{"seed":9223372036854775808}', seeds=(2**63 - 1,)) is BypassReason.RANDOM_SEED
    assert verdict('{"seed":-1}', seeds=()) is Proof.SEED


@given(st.integers(), st.frozensets(st.integers(), max_size=4))
def test_any_integer_but_a_random_one_is_a_seed(seed, random_seeds):
    """No number is too large to be a seed."""
    random = {float(value) for value in random_seeds}
    assert sets_seed(read_controls(json.dumps({"seed": seed}).encode()), random_seeds) == (float(seed) not in random)


@pytest.mark.parametrize("zero", ["0", "0.0", "0e5", "-0.0", "0.000"])
def test_zero_temperature_proves_determinism(zero):
    """A chat model without randomness gives everybody the same answer."""
    assert verdict(f'{{"temperature":{zero}}}', CHATTY) is Proof.TEMPERATURE_ZERO
    assert verdict(f'{{"temperature":{zero}}}', BOTH) is Proof.TEMPERATURE_ZERO
    assert verdict(f'{{"temperature":{zero},"seed":-1}}', BOTH) is Proof.TEMPERATURE_ZERO


@pytest.mark.parametrize("warm", ["0.1", "1", "null", '"0"', "false", "[]", "[0]", "1e-300"])
def test_other_temperature_proves_nothing(warm):
    """Each request runs the model again."""
    assert verdict(f'{{"temperature":{warm}}}', CHATTY) is BypassReason.TEMPERATURE
    assert verdict(f'{{"temperature":{warm}}}', BOTH) is BypassReason.NO_SEED
    assert verdict(f'{{"temperature":{warm},"seed":5}}', BOTH) is Proof.SEED


def test_schema_defaults_prove_nothing():
    """The model's owner can change a seed or temperature that the caller did not give."""
    assert verdict("{}", SEEDED) is BypassReason.NO_SEED
    assert verdict("{}", CHATTY) is BypassReason.TEMPERATURE


def test_seed_that_the_model_does_not_take_proves_nothing():
    """An input that the model ignores does not fix its output."""
    assert verdict('{"seed":42}', NEITHER) is BypassReason.NO_SEED_INPUT
    assert verdict('{"seed":42}', CHATTY) is BypassReason.TEMPERATURE
    assert verdict('{"temperature":0}', SEEDED) is BypassReason.NO_SEED
    assert verdict('{"seed":42}', InputSchema()) is BypassReason.NO_SEED_INPUT


def test_missing_schema_or_model_is_unknown():
    """A model whose schema cannot be fetched is run each time."""
    assert verdict('{"seed":42}', None) is BypassReason.SCHEMA_UNKNOWN
    assert verdict('{"seed":42}', None, model=None) is BypassReason.MODEL_UNKNOWN


@pytest.mark.parametrize(
    ("rule", "text", "schema", "expected"),
    [
        (ALWAYS, "{}", None, Proof.RULE_ALWAYS),
        (ALWAYS, "{}", NEITHER, Proof.RULE_ALWAYS),
        (NEVER, '{"seed":42}', SEEDED, BypassReason.RULE_NEVER),
        (BY_SEED, '{"seed":42}', None, Proof.RULE_SEEDED),
        (BY_SEED, '{"seed":42}', NEITHER, Proof.RULE_SEEDED),
        (BY_SEED, '{"temperature":0}', BOTH, BypassReason.NO_SEED),
        (BY_SEED, '{"seed":-1}', SEEDED, BypassReason.RANDOM_SEED),
    ],
)
def test_rule_of_the_config_overrides_the_schema(rule, text, schema, expected):
    """The operator knows the model better than its schema does."""
    assert verdict(text, schema, rule) is expected
    assert verdict(text, schema, Rule("*", rule.mode), model=None) is expected


def test_first_matching_rule_applies():
    """A rule for one model can precede the rule for all models of its owner."""
    rules = (Rule("acme/toy", Mode.NEVER), Rule("acme/*", Mode.ALWAYS), Rule("*", Mode.SEEDED))
    assert rule_for(rules, "acme/toy") is rules[0]
    assert rule_for(rules, "acme/toys") is rules[1]
    assert rule_for(rules, "other/toy") is rules[2]
    assert rule_for(rules[:2], "other/toy") is None
    assert rule_for((), "acme/toy") is None


def test_rule_for_a_model_does_not_match_a_bare_version():
    """Its model is not known yet; a rule for `*` matches it."""
    assert needs_model((ALWAYS, Rule("*", Mode.ALWAYS)))
    assert not needs_model((Rule("*", Mode.ALWAYS), NEVER))
    assert not needs_model(())
    assert verdict('{"seed":1}', None, ALWAYS, model=None) is BypassReason.MODEL_UNKNOWN
    assert (
        verdict('{"seed":1}', SEEDED, NEVER, model=None, asserted=True, may_assert=True) is BypassReason.MODEL_UNKNOWN
    )
    assert verdict('{"seed":1}', SEEDED, model=None) is Proof.SEED


def test_ignored_inputs_are_those_of_the_first_matching_rule():
    """Rules do not add up."""
    rules = (
        Rule("acme/toy", Mode.ALWAYS, ignore_inputs=frozenset({"note"})),
        Rule("*", Mode.NEVER, 60.0, frozenset({"x"})),
    )
    acme, other = rule_for(rules, "acme/toy"), rule_for(rules, "other/toy")
    assert acme is not None
    assert acme.ignore_inputs == {"note"}
    assert other is not None
    assert other.ignore_inputs == {"x"}
    assert rule_for((), "acme/toy") is None


def test_deterministic_header_needs_the_teams_permission():
    """A trusted team shares what no schema proves; for another the reason says that its header is ignored."""
    word = {"asserted": True}
    assert verdict("{}", SEEDED, **word, may_assert=True) is Proof.ASSERTED
    assert verdict("{}", None, **word, may_assert=True) is Proof.ASSERTED
    assert verdict("{}", NEITHER, BY_SEED, **word, may_assert=True) is Proof.ASSERTED
    assert verdict("{}", SEEDED, **word) is BypassReason.ASSERTION_REFUSED
    assert verdict('{"seed":1}', SEEDED, **word) is Proof.SEED
    assert verdict("{}", SEEDED, may_assert=True) is BypassReason.NO_SEED


def test_never_rule_overrides_the_deterministic_header():
    """The same holds for trainings, and for everything where the cache is off."""
    word = {"asserted": True, "may_assert": True}
    assert verdict("{}", SEEDED, NEVER, **word) is BypassReason.RULE_NEVER
    assert verdict('{"seed":1}', SEEDED, ALWAYS, kind=Kind.TRAINING, **word) is BypassReason.TRAINING
    off = Policy(enabled=False, rules=(ALWAYS,))
    assert judge(read_controls(b'{"seed":1}'), SEEDED, off, ALWAYS, model="acme/toy", **word) == NotDeterministic(
        BypassReason.DISABLED
    )


def test_reasons_are_valid_in_headers_and_labels():
    """They are tokens of RFC 9110, and the two sets do not overlap."""
    words = [*Proof, *BypassReason]
    assert len({str(word) for word in words}) == len(words)
    assert all(word.replace("-", "").isalpha() and word == word.lower() and len(word) < 25 for word in words)


@given(
    st.dictionaries(
        st.sampled_from(["seed", "temperature", "prompt"]), st.none() | st.integers() | st.floats() | st.text()
    ),
    st.sampled_from([None, SEEDED, CHATTY, BOTH, NEITHER]),
    st.lists(st.builds(Rule, st.sampled_from(["*", "acme/*", "acme/toy", "x/y"]), st.sampled_from(Mode)), max_size=3),
    st.sampled_from([None, "acme/toy", "x/y"]),
    st.booleans(),
    st.booleans(),
)
def test_every_request_gets_a_verdict(given_input, schema, rules, model, asserted, may_assert):
    """For every request the gateway says why it was shared, or was not."""
    text = json.dumps(given_input).encode()
    rule, policy = rule_for(rules, model), Policy(rules=tuple(rules))
    found = judge(read_controls(text), schema, policy, rule, model=model, asserted=asserted, may_assert=may_assert)
    assert isinstance(found, Deterministic) == isinstance(found.reason, Proof)
    if isinstance(found, Deterministic) and rule is not None:
        assert rule.mode is not Mode.NEVER
