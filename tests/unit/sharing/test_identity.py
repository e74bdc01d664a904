"""Which requests are equal: what the service looks up for the rules, and what they decide."""

import copy
import gc
import json
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain import text_links
from gateway.domain.bypass import BypassReason
from gateway.domain.cache_directives import Directives
from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import CreateContext
from gateway.domain.file_content import FileContent
from gateway.domain.records import Kind
from gateway.domain.targets import Target, TargetKind
from gateway.domain.teams import Team
from gateway.errors import UpstreamUnavailable
from gateway.models.rules.schema import InputSchema
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.runtime.live import LiveSettings
from gateway.sharing.identity import Identity, IdentityService
from gateway.sharing.rules.determinism import Mode, Policy, Proof, Rule
from gateway.sharing.settings import SharingSettings
from tests.support.clock import ManualClock
from tests.support.create_core import MODEL, SEEDED, SEEDLESS, VERSION, caller, command
from tests.support.fakes import AWAY, Call, FakeStore, FakeUpstream, answer
from tests.support.records import live

NAMED = f"{MODEL}:{VERSION}"


class Sharing:
    """The service, with a model whose schema the test sets."""

    def __init__(self, store: FakeStore, upstream: FakeUpstream, clock: ManualClock) -> None:
        self.schema: Any = SEEDED
        self.error: Exception | None = None
        self.store = store
        self.upstream = upstream
        upstream.script = self._answer
        self.settings = LiveSettings(SharingSettings(policy=Policy(), share="team", ttl_seconds=600.0))
        self.service = IdentityService(SchemaService(upstream, clock), VersionMap(store, upstream), self.settings)

    def _answer(self, call: Call) -> Any:
        if self.error is not None:
            raise self.error
        shown = {"openapi_schema": self.schema, "latest_version": {"openapi_schema": self.schema}}
        return answer(200, json.dumps(shown).encode())

    def rule(self, policy: Policy, share: str = "team", ttl_seconds: float = 600.0) -> None:
        self.settings.replace(SharingSettings(policy=policy, share=share, ttl_seconds=ttl_seconds))

    async def of(
        self,
        target: str | Target = NAMED,
        given: Any = None,
        files: dict[str, FileContent] | None = None,
        **fields: Any,
    ) -> Identity:
        asker = fields.pop("caller", caller())
        made = command(target=target, **fields)
        if given is not None:
            text = given if isinstance(given, bytes) else json.dumps(given).encode()
            made = replace(made, body=CreateBody(input=text, target=made.target, version=made.body.version))
        context = CreateContext(asker, made, files or {}, may_link=bool(files) or text_links.may_be_in(made.body.input))
        return await self.service.of(await self.service.named(context))


@pytest.fixture
def sharing(store: FakeStore, upstream: FakeUpstream, clock: ManualClock) -> Sharing:
    return Sharing(store, upstream, clock)


async def test_unshareable_request_is_not_looked_up_upstream(sharing: Sharing) -> None:
    identities = [
        await sharing.of(directives=Directives(no_store=True)),
        await training(sharing),
    ]
    sharing.rule(Policy(enabled=False))
    identities.append(await sharing.of())
    assert [each.reason for each in identities] == [BypassReason.NO_STORE, BypassReason.TRAINING, BypassReason.DISABLED]
    assert not any(each.is_shared for each in identities)
    assert sharing.upstream.calls == []


async def training(sharing: Sharing) -> Identity:
    made = replace(command(target=NAMED), kind=Kind.TRAINING)
    return await sharing.service.of(CreateContext(caller(), made, {}))


async def test_seed_in_the_schema_proves_determinism(sharing: Sharing) -> None:
    identity = await sharing.of()
    assert (identity.reason, identity.ttl_seconds) == (Proof.SEED, 600.0)
    assert identity.fingerprint is not None
    assert identity.is_shared


async def test_model_without_a_seed_is_not_shared(sharing: Sharing) -> None:
    sharing.schema = SEEDLESS
    identity = await sharing.of()
    assert (identity.reason, identity.is_shared, identity.ttl_seconds) == (BypassReason.NO_SEED_INPUT, False, 0.0)


async def test_unavailable_schema_proves_nothing(sharing: Sharing) -> None:
    sharing.error = UpstreamUnavailable("down")
    identity = await sharing.of()
    assert (identity.reason, identity.is_shared, identity.ttl_seconds) == (BypassReason.SCHEMA_UNKNOWN, False, 0.0)


async def test_too_deep_input_is_not_shared(sharing: Sharing) -> None:
    deep = b'{"seed":7,"prompt":' + b"[" * 200 + b"]" * 200 + b"}"
    identity = await sharing.of(given=deep)
    assert (identity.reason, identity.is_shared, identity.ttl_seconds) == (BypassReason.INPUT_UNREADABLE, False, 0.0)


async def test_schema_defaults_are_filled_in(sharing: Sharing) -> None:
    """An absent input equals one that is given its default."""
    sharing.schema = copy.deepcopy(SEEDED)
    sharing.schema["components"]["schemas"]["Input"]["properties"]["steps"] = {"type": "integer", "default": 4}
    with_default = await sharing.of(given={"prompt": "a", "seed": 7, "steps": 4})
    without = await sharing.of(given={"prompt": "a", "seed": 7})
    other = await sharing.of(given={"prompt": "a", "seed": 7, "steps": 5})
    assert with_default.fingerprint == without.fingerprint != other.fingerprint


async def test_file_is_compared_by_its_content(sharing: Sharing) -> None:
    sharing.rule(Policy(rules=(Rule(MODEL, Mode.ALWAYS),)))
    link, other = "https://api.replicate.com/v1/files/a", "https://api.replicate.com/v1/files/b"
    one = await sharing.of(given={"image": link}, files={link: FileContent("ab" * 32)})
    two = await sharing.of(given={"image": other}, files={other: FileContent("ab" * 32)})
    three = await sharing.of(given={"image": other}, files={other: FileContent("cd" * 32)})
    assert one.fingerprint == two.fingerprint != three.fingerprint


async def test_teams_share_only_if_configured(sharing: Sharing) -> None:
    red, blue = await sharing.of(), await sharing.of(caller=caller("blue"))
    assert red.fingerprint != blue.fingerprint
    sharing.rule(Policy(), share="all")
    red, blue = await sharing.of(), await sharing.of(caller=caller("blue"))
    assert red.fingerprint == blue.fingerprint


async def test_deterministic_header_needs_the_teams_permission(sharing: Sharing) -> None:
    sharing.schema = SEEDLESS
    asserted = Directives(deterministic=True)
    assert (await sharing.of(directives=asserted)).reason is BypassReason.ASSERTION_REFUSED
    trusted = caller()
    trusted = replace(trusted, team=Team(name="red", scopes=trusted.scopes, may_assert_deterministic=True))
    assert (await sharing.of(directives=asserted, caller=trusted)).reason is Proof.ASSERTED


# Rules


async def test_rule_overrides_the_schema_and_sets_the_ttl(sharing: Sharing) -> None:
    sharing.schema = SEEDLESS
    sharing.rule(Policy(rules=(Rule(MODEL, Mode.ALWAYS, ttl_seconds=5.0, ignore_inputs=frozenset({"note"})),)))
    identity = await sharing.of(given={"prompt": "a", "note": "x"})
    assert (identity.reason, identity.ttl_seconds) == (Proof.RULE_ALWAYS, 5.0)
    assert identity.fingerprint == (await sharing.of(given={"prompt": "a", "note": "y"})).fingerprint
    sharing.rule(Policy(rules=(Rule(MODEL, Mode.NEVER),)))
    assert (await sharing.of()).reason is BypassReason.RULE_NEVER


def test_ttl_of_a_run_is_looked_up_by_its_target(sharing: Sharing) -> None:
    sharing.rule(Policy(rules=(Rule(MODEL, Mode.ALWAYS, ttl_seconds=5.0),)))
    ttls = [
        sharing.service.ttl_of(live(target=target, fingerprint="F"))
        for target in (MODEL, NAMED, "other/model", VERSION)
    ]
    assert ttls == [5.0, 5.0, 600.0, 600.0]
    assert sharing.service.ttl_of(live(target=MODEL)) is None


async def test_changed_rules_apply_to_the_next_request(sharing: Sharing) -> None:
    assert (await sharing.of()).reason is Proof.SEED
    sharing.rule(Policy(enabled=False))
    assert (await sharing.of()).reason is BypassReason.DISABLED


# Bare versions


async def test_version_of_an_unknown_model_has_a_provisional_identity(sharing: Sharing) -> None:
    identity = await sharing.of(VERSION)
    assert (identity.fingerprint, identity.reason) == (None, BypassReason.MODEL_UNKNOWN)
    assert identity.provisional == (await sharing.of(VERSION)).provisional is not None
    assert identity.is_shared


async def test_version_of_an_unknown_model_without_a_seed_is_not_shared(sharing: Sharing) -> None:
    identity = await sharing.of(VERSION, given={"prompt": "a"})
    assert (identity.provisional, identity.reason, identity.is_shared) == (None, BypassReason.MODEL_UNKNOWN, False)


async def test_named_version_matches_a_run_of_the_bare_version(sharing: Sharing) -> None:
    """A run that started under the bare version is found by a request that names the model."""
    bare = await sharing.of(VERSION)
    named = await sharing.of(NAMED)
    assert named.fingerprint is not None
    assert named.provisional == bare.provisional


async def test_bare_version_of_a_known_model_equals_the_named_one(sharing: Sharing, store: FakeStore) -> None:
    store.versions[VERSION] = MODEL
    assert await sharing.of(VERSION) == await sharing.of(NAMED)


async def test_bare_target_is_named_once_its_model_is_known(sharing: Sharing, store: FakeStore) -> None:
    context = CreateContext(caller(), command(target=VERSION), {})
    assert await sharing.service.named(context) is context
    store.versions[VERSION] = MODEL
    named = await sharing.service.named(context)
    assert named.command.target == Target(TargetKind.VERSION, MODEL, VERSION)
    # The body that is sent upstream is unchanged.
    assert named.plain_body == context.plain_body
    assert await sharing.service.named(named) is named


async def test_official_model_needs_no_version_map(sharing: Sharing, store: FakeStore) -> None:
    store.trouble = AWAY
    identity = await sharing.of(Target(TargetKind.MODEL, MODEL))
    assert (identity.reason, identity.provisional) == (Proof.SEED, None)


CAMERA = "https://example.com/cam/latest.jpg"


@pytest.mark.parametrize(
    ("rules", "asserted", "reason"),
    [
        ((), False, BypassReason.EXTERNAL_LINK),
        ((Rule(MODEL, Mode.SEEDED),), False, BypassReason.EXTERNAL_LINK),
        ((Rule(MODEL, Mode.SEEDED, text_inputs=frozenset({"prompt", "image"})),), False, Proof.RULE_SEEDED),
        ((Rule(MODEL, Mode.SEEDED, ignore_inputs=frozenset({"image"})),), False, Proof.RULE_SEEDED),
        ((Rule(MODEL, Mode.ALWAYS),), False, Proof.RULE_ALWAYS),
        ((Rule(MODEL, Mode.NEVER),), True, BypassReason.RULE_NEVER),
        ((), True, Proof.ASSERTED),
    ],
)
async def test_external_link_is_a_reason_unless_a_rule_or_the_caller_vouches(
    sharing: Sharing, rules: tuple[Rule, ...], asserted: bool, reason: Any
) -> None:
    sharing.rule(Policy(rules=rules))
    trusted = caller()
    trusted = replace(trusted, team=Team(name="red", scopes=trusted.scopes, may_assert_deterministic=True))
    given = {"prompt": CAMERA, "seed": 5, "image": CAMERA}
    identity = await sharing.of(given=given, caller=trusted, directives=Directives(deterministic=asserted))
    assert identity.reason is reason
    assert identity.is_shared is isinstance(reason, Proof)


async def test_external_link_of_an_unknown_version_is_not_waited_for(sharing: Sharing) -> None:
    """Equal requests need not wait for each other if no model's rule can allow the link."""
    given = {"seed": 5, "image": CAMERA}
    assert (await sharing.of(VERSION, given)).reason is BypassReason.EXTERNAL_LINK
    sharing.rule(Policy(rules=(Rule(MODEL, Mode.ALWAYS),)))
    waiting = await sharing.of(VERSION, given)
    assert (waiting.reason, waiting.is_shared) == (BypassReason.MODEL_UNKNOWN, True)


async def test_secret_input_is_a_reason_even_against_rules(sharing: Sharing) -> None:
    sharing.schema = copy.deepcopy(SEEDED)
    inputs = sharing.schema["components"]["schemas"]["Input"]["properties"]
    inputs["token"] = {"type": "string", "x-cog-secret": True}
    sharing.rule(Policy(rules=(Rule(MODEL, Mode.ALWAYS),)))
    assert (await sharing.of(given={"seed": 1, "token": "sk-1"})).reason is BypassReason.SECRET_INPUT
    assert (await sharing.of(given={"seed": 1, "token": None})).reason is Proof.RULE_ALWAYS


async def test_fingerprint_without_a_schema_is_keyed(sharing: Sharing):
    """What cannot be read can mark inputs as secret, and a plain digest lets short values be guessed."""
    sharing.rule(Policy(rules=(Rule("*", Mode.ALWAYS),)))
    sharing.schema = None
    one, again = await sharing.of(given={"pin": "1234"}), await sharing.of(given={"pin": "1234"})
    assert one.fingerprint == again.fingerprint is not None
    sharing.service = IdentityService(
        SchemaService(sharing.upstream, ManualClock()),
        VersionMap(sharing.store, sharing.upstream),
        sharing.settings,
        secret=b"another store's",
    )
    assert (await sharing.of(given={"pin": "1234"})).fingerprint not in (None, one.fingerprint)


async def test_remembered_fingerprint_is_the_one_that_would_be_computed(sharing: Sharing) -> None:
    """Whatever was asked before: another team, rule, share or schema never gives its fingerprint to a request."""
    inputs = [{"seed": 1}, {"seed": 1.0}, {"seed": 2, "prompt": "x"}, b'{"seed":2, "prompt":"x"}']
    policies = [
        Policy(),
        Policy(rules=(Rule(MODEL, Mode.ALWAYS, ignore_inputs=frozenset({"prompt"})),)),
        Policy(rules=(Rule(MODEL, Mode.SEEDED, ttl_seconds=5.0),)),
    ]
    asked = [
        (given, policy, share, team, target)
        for given in inputs
        for policy in policies
        for share in ("team", "all")
        for team in ("red", "blue")
        for target in (NAMED, MODEL)
    ]

    async def ask(service: Sharing, given: Any, policy: Policy, share: str, team: str, target: str) -> Identity:
        service.rule(policy, share)
        return await service.of(target, given, caller=caller(team))

    remembered = [await ask(sharing, *each) for _ in range(2) for each in asked]
    alone = [await ask(Sharing(FakeStore(), FakeUpstream(), ManualClock()), *each) for each in asked]
    assert remembered == alone * 2
    assert len({each.fingerprint for each in alone}) > len(inputs)
    assert any(each.provisional for each in alone)


async def test_new_schema_gives_a_new_fingerprint(sharing: Sharing, clock: ManualClock) -> None:
    """The current version of a model can change: its defaults are those of the schema that holds now."""
    before = await sharing.of(MODEL, {"seed": 1})
    assert await sharing.of(MODEL, {"seed": 1}) == before
    sharing.schema = copy.deepcopy(SEEDED)
    sharing.schema["components"]["schemas"]["Input"]["properties"]["prompt"]["default"] = "another"
    await clock.advance(301)
    assert (await sharing.of(MODEL, {"seed": 1})).fingerprint != before.fingerprint


async def test_remembered_fingerprints_keep_no_schema(sharing: Sharing, clock: ManualClock) -> None:
    """A schema can be a thousand times as large as a fingerprint, and a model gets a new one every few minutes."""

    def schemas() -> int:
        gc.collect()
        return sum(isinstance(each, InputSchema) for each in gc.get_objects())

    await sharing.of(MODEL, {"seed": 0})
    before = schemas()
    for seed in range(1, 6):
        await clock.advance(301)
        await sharing.of(MODEL, {"seed": seed})
    assert schemas() <= before
