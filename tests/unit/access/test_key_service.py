"""Keys are created, changed, rotated and revoked by those who may."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.access.key_service import Authority, KeyService
from gateway.access.rules import api_keys
from gateway.access.rules.key_requests import KeyRequest
from gateway.domain.audit import Actor
from gateway.domain.limits import Allowance, Limits
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller, Team
from gateway.errors import Conflict, Forbidden, NotFound, Unauthenticated, Unprocessable
from tests.support.clock import START, ManualClock
from tests.support.fakes import FakeStore
from tests.support.live import access_of, teams_of
from tests.support.records import key

RED = Team(name="red", scopes=frozenset(Scope), models=("acme/*",), max_issued_keys=5)
BLUE = Team(name="blue", scopes=frozenset(Scope))
OPERATORS = Authority(actor=Actor("api"))
OWN = key("holder", scopes=("read", "predict", "keys"), created_at=START)
CONFIG = key("red/web", name="web", created_at=0.0)


def request(**body: Any) -> KeyRequest:
    return msgspec.json.decode(msgspec.json.encode(body), type=KeyRequest)


def held(own: Any = OWN, team: Team = RED, **fields: Any) -> Authority:
    """Return the authority of the holder of a key."""
    scopes = frozenset(scope for scope in Scope if scope in own.scopes)
    return Authority.of_caller(Caller(team=team, key_id=own.id, scopes=scopes, models=(team.models,), **fields))


@pytest.fixture
def changed() -> list[str]:
    return []


@pytest.fixture
def service(store: FakeStore, clock: ManualClock, changed: list[str]) -> KeyService:
    store.issued["holder"] = OWN
    return KeyService(store, teams_of(RED, BLUE), access_of(CONFIG), clock, on_changed=changed.append)


async def test_created_key_is_stored_without_its_secret(service, store):
    row = await service.create(OPERATORS, request(team="red", name="ci", limits={"requests_per_minute": 60}))
    stored = store.issued[row.id]
    assert api_keys.matches(row.key, stored.sha256)
    assert row.key not in repr(stored)
    assert row.key not in repr(row)
    assert (row.last_four, stored.last_four) == (row.key[-4:],) * 2
    assert stored.allowance == Allowance(own=Limits(requests_per_minute=60))
    assert (row.name, row.team, row.limits, row.state) == ("ci", "red", {"requests_per_minute": 60}, "valid")


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "team"), ({"team": "green"}, "team"), ({"team": "red", "models": ["meta/*"]}, "models")],
)
async def test_refusals_name_the_field(service, store, body, field):
    with pytest.raises(Unprocessable) as caught:
        await service.create(OPERATORS, request(**body))
    assert [each.field for each in caught.value.fields] == [field]
    assert store.issued.keys() == {"holder"}


async def test_name_of_a_key_of_the_config_is_taken(service):
    with pytest.raises(Conflict, match="web"):
        await service.create(OPERATORS, request(team="red", name="web"))
    made = await service.create(OPERATORS, request(team="blue", name="web"))
    assert made.name == "web"
    other = await service.create(OPERATORS, request(team="red"))
    with pytest.raises(Conflict, match="web"):
        await service.change(OPERATORS, other.id, request(name="web"))


async def test_holder_manages_the_keys_of_its_team_that_it_could_create(service, changed):
    made = await service.create(held(), request(name="app"))
    assert (made.team, made.scopes) == ("red", ("read", "predict"))
    row = await service.change(held(), made.id, request(limits={"burst": 3}))
    assert row.limits == {"burst": 3}
    new, old = await service.rotate(held(), made.id, 60)
    assert (new.name, new.scopes, new.limits, old.id) == ("app", made.scopes, row.limits, made.id)
    assert (await service.revoke(held(), new.id)).state == "revoked"
    assert changed == [made.id, made.id, new.id]


@pytest.mark.parametrize(
    ("now", "error"),
    [
        ({"scopes": ("read", "keys")}, Unprocessable),
        ({"models": ("acme/one",)}, Unprocessable),
        ({"allowance": Allowance(own=Limits(burst=1))}, Unprocessable),
        ({"scopes": ("read", "predict")}, Forbidden),
        ({"origins": ("https://a.example",)}, Forbidden),
    ],
)
async def test_holder_grants_by_its_key_as_it_is_now(service, store, now, error):
    """Not as it was when the request, or the session, was authenticated."""
    caller = held()
    store.issued["holder"] = replace(OWN, **now)
    wanted = {"scopes": ["predict"], "models": ["acme/two"], "limits": {"burst": 2}}
    with pytest.raises(error):
        await service.create(caller, request(**wanted))
    assert store.issued.keys() == {"holder"}


class ChangedMeanwhile(FakeStore):
    """A store in which an operator revokes the holder's key while a request of the holder is handled."""

    def revoke(self) -> None:
        self.issued["holder"] = replace(OWN, revoked_at=START)

    async def add_key(self, *args: Any, **kwargs: Any) -> None:
        self.revoke()
        await super().add_key(*args, **kwargs)

    async def change_key(self, *args: Any, **kwargs: Any) -> Any:
        self.revoke()
        return await super().change_key(*args, **kwargs)

    async def rotate_key(self, *args: Any, **kwargs: Any) -> Any:
        self.revoke()
        return await super().rotate_key(*args, **kwargs)


async def test_a_key_that_is_revoked_meanwhile_grants_nothing(clock):
    """Its rights count when the change is made, not when the request began."""
    store = ChangedMeanwhile()
    store.issued |= {"holder": OWN, "app": key("app", scopes=("read",), created_at=START)}
    before = store.issued["app"]
    service = KeyService(store, teams_of(RED, BLUE), access_of(CONFIG), clock)
    for call in (
        lambda: service.create(held(), request()),
        lambda: service.change(held(), "app", request(name="x")),
        lambda: service.rotate(held(), "app", 0),
    ):
        store.issued["holder"] = OWN
        with pytest.raises(Conflict, match="meanwhile"):
            await call()
    assert store.issued.keys() == {"holder", "app"}
    assert store.issued["app"] == before


async def test_null_grants_no_more_than_the_holder_has_later(service, store):
    """A key without a list has what its team is given later, and the holder may not be given that."""
    store.issued["holder"] = own = replace(OWN, scopes=tuple(Scope), models=("acme/*",))
    for body, field in (({"scopes": None}, "scopes"), ({"models": None}, "models")):
        with pytest.raises(Unprocessable) as caught:
            await service.create(held(own), request(**body))
        assert [each.field for each in caught.value.fields] == [field]
    made = await service.create(held(own), request())
    with pytest.raises(Unprocessable):
        await service.change(held(own), made.id, request(models=None))


async def test_keys_that_a_revoked_key_has_created_stay_valid_and_are_counted(service, store):
    """Also those that it has rotated: its holder has seen their secrets."""
    made = [await service.create(held(), request(name=name, scopes=["read"])) for name in ("one", "two")]
    new, _ = await service.rotate(held(), made[1].id, 0)
    await service.create(OPERATORS, request(team="red", name="other"))
    assert [row.created_by for row in (*made, new)] == ["key:holder"] * 3
    listed = (await service.list(team="red", created_by="key:holder")).keys
    assert {row.id for row in listed} == {made[0].id, made[1].id, new.id}
    revoked = await service.revoke(OPERATORS, "holder")
    assert (revoked.state, revoked.valid_keys_created) == ("revoked", 2)
    assert (await service.list(created_by="api")).keys[0].name == "other"


async def test_actors_are_named_by_their_keys(service, store):
    """Of the config and of the store, and of one's own team only."""
    store.issued["blues"] = key("blues", team="blue")
    actors = ["key:holder", "key:red/web", "key:blues", "key:gone", "cli:ann", ""]
    own = {"key:holder": OWN.name, "key:red/web": "web"}
    assert await service.names_of(actors, "red") == own
    assert await service.names_of(actors, None) == own | {"key:blues": "name-blues"}


async def test_holder_sees_nothing_of_other_teams(service):
    """A key of another team, one that is unknown, and one of the config give the same answer."""
    theirs = await service.create(OPERATORS, request(team="blue"))
    answers = set()
    for key_id in (theirs.id, "unknown", "red/web"):
        for call in (
            service.change(held(), key_id, request(name="x")),
            service.rotate(held(), key_id, 0),
            service.revoke(held(), key_id),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            answers.add(caught.value.detail)
    assert len(answers) == 1
    with pytest.raises(Unprocessable):
        await service.create(held(), request(team="blue"))


async def test_holder_may_not_touch_what_it_could_not_create(service, store):
    """A key with more rights: neither taken over by a rotation, nor revoked, nor changed."""
    wider = await service.create(OPERATORS, request(team="red"))
    admin = await service.create(OPERATORS, request(team="red", scopes=["admin"]))
    for key_id in (wider.id, admin.id):
        for call in (
            service.change(held(), key_id, request(scopes=["read"])),
            service.rotate(held(), key_id, 0),
            service.revoke(held(), key_id),
        ):
            with pytest.raises(Forbidden, match="scopes"):
                await call
        assert store.issued[key_id].revoked_at is None


@pytest.mark.parametrize("body", [{"scopes": ["files"]}, {"scopes": None}, {"scopes": ["admin"]}, {"team": "red"}])
async def test_holder_cannot_widen_a_key(service, body):
    made = await service.create(held(), request())
    with pytest.raises(Unprocessable):
        await service.change(held(), made.id, request(**body))


async def test_holder_cannot_outlive_its_own_key(service, store, clock):
    """Neither by a new key, nor by rotating itself again and again."""
    own = store.issued["holder"] = replace(OWN, expires_at=START + 100)
    made = await service.create(held(own), request())
    assert store.issued[made.id].expires_at == START + 100
    await clock.advance(60)
    new, _ = await service.rotate(held(own), "holder", 0)
    assert store.issued[new.id].expires_at == START + 100
    await clock.advance(41)
    with pytest.raises(Unauthenticated):
        await service.create(held(own), request())


async def test_public_credentials_and_other_scopes_manage_nothing(service):
    for authority in (held(is_public=True), held(replace(OWN, scopes=("read", "predict")))):
        with pytest.raises(Forbidden):
            await service.create(authority, request())


async def test_key_of_a_page_stays_one(service):
    """Its secret is known to every visitor."""
    made = await service.create(OPERATORS, request(team="blue", origins=["https://a.example"]))
    with pytest.raises(Unprocessable) as caught:
        await service.change(OPERATORS, made.id, request(origins=None))
    assert caught.value.fields[0].field == "origins"


async def test_what_the_team_has_lost_does_not_hinder_a_change(service, store):
    """The team's models were narrowed after the key was made: the key keeps its list, which grants nothing more."""
    made = await service.create(OPERATORS, request(team="red"))
    store.issued[made.id] = replace(store.issued[made.id], models=("meta/*",))
    assert (await service.change(OPERATORS, made.id, request(name="renamed"))).name == "renamed"
    with pytest.raises(Unprocessable):
        await service.change(OPERATORS, made.id, request(models=["meta/x"]))


async def test_keys_of_the_config_are_listed_and_not_changed(service, store):
    await service.create(OPERATORS, request(team="blue"))
    store.uses["red/web"] = START
    pages, place = [], None
    while True:
        page = await service.list(limit=1, older_than=place)
        pages += page.keys
        place = page.next
        if place is None:
            break
    assert [row.source for row in pages] == ["issued", "issued", "config"]
    assert pages[-1].last_used_at is not None
    assert {row.id for row in (await service.list(team="red")).keys} == {"holder", "red/web"}
    with pytest.raises(Conflict, match="config"):
        await service.revoke(OPERATORS, "red/web")


LEAD = Authority(
    actor=Actor("issuer:id:ann"),
    caller=Caller(team=RED, key_id="red/issuer:id", scopes=RED.scopes, models=(RED.models,)),
    is_lead=True,
)


async def test_lead_grants_what_the_team_has(service, store):
    """No key bounds it. The account and administration stay with the operators."""
    row = await service.create(LEAD, request(name="ci", scopes=["read", "train"], models=["acme/painter"]))
    assert (row.team, row.name) == ("red", "ci")
    assert (await service.create(LEAD, request())).expires_at is None
    for body, field in (
        ({"scopes": ["admin"]}, "scopes"),
        ({"scopes": ["account"]}, "scopes"),
        ({"scopes": None}, "scopes"),
        ({"models": ["other/x"]}, "models"),
        ({"team": "blue"}, "team"),
    ):
        with pytest.raises(Unprocessable) as caught:
            await service.create(LEAD, request(**body))
        assert [each.field for each in caught.value.fields] == [field], body
    assert (await service.rotate(LEAD, row.id, 60.0))[0].team == "red"
    assert (await service.revoke(LEAD, row.id)).state == "revoked"


async def test_lead_does_not_touch_keys_of_others(service, store):
    """Of another team, of the config, or with rights that it could not grant."""
    store.issued["theirs"] = key("theirs", team="blue")
    store.issued["strong"] = key("strong", scopes=("read", "admin"))
    for key_id, refusal in (("theirs", NotFound), ("red/web", NotFound), ("strong", Forbidden)):
        for act in (service.revoke(LEAD, key_id), service.rotate(LEAD, key_id, 60.0)):
            with pytest.raises(refusal):
                await act


async def test_key_of_a_team_that_was_narrowed_can_be_revoked(store, clock):
    """Its secret may be known. It can do no more than its team, whatever it was given; nor does it get that back."""
    narrow = replace(RED, scopes=frozenset({Scope.READ, Scope.KEYS}), models=("acme/one",))
    service = KeyService(store, teams_of(narrow), access_of(), clock)
    wide = key("wide", scopes=("read", "predict", "admin"), models=("acme/*",), created_at=START)
    lead = replace(LEAD, caller=replace(LEAD.caller, team=narrow))
    store.issued |= {"wide": wide, "holder": OWN, "bound": replace(OWN, id="bound", models=("acme/two",))}
    with pytest.raises(Forbidden):
        await service.rotate(lead, "wide", 60.0)
    with pytest.raises(Forbidden, match="models"):
        await service.revoke(held(replace(OWN, id="bound"), narrow), "wide")
    for authority in (lead, held(OWN, narrow)):
        store.issued["wide"] = wide
        assert (await service.revoke(authority, "wide")).state == "revoked"
