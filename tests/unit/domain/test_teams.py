"""Teams and callers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain.limits import UNLIMITED, Allowance, Limits, Subject, SubjectKind
from gateway.domain.scopes import Scope
from gateway.domain.tags import of_limited, text_of
from gateway.domain.targets import Target, TargetKind
from gateway.domain.teams import Caller, Team, origin_allowed

GLOBS = st.lists(st.sampled_from(["*", "a/*", "*/x", "a/x", "b/y", "a/x?"]), max_size=3).map(tuple)
MODELS = st.sampled_from(["a/x", "a/xy", "b/y", "b/x", "c/z"])


def caller(*models: tuple[str, ...], scopes: frozenset[Scope] = frozenset({Scope.PREDICT})) -> Caller:
    return Caller(team=Team(name="red", scopes=scopes), key_id="k", scopes=scopes, models=models)


def test_team_without_a_list_may_run_everything():
    """A team without a list is not limited."""
    assert Team(name="red", scopes=frozenset()).models == ("*",)


@given(st.lists(GLOBS, min_size=1, max_size=3), GLOBS, MODELS)
def test_further_lists_only_narrow(lists, another, model):
    """Whatever a key or a token lists, it runs nothing that its team may not."""
    before, after = caller(*lists), caller(*lists, another)
    assert after.may_run(model) <= before.may_run(model)
    assert after.may_run_anything <= before.may_run_anything


@given(st.lists(GLOBS, min_size=1, max_size=3))
def test_named_models_are_all_allowed(lists):
    """Upstream is asked only about what the caller may run, and about each once."""
    who = caller(*lists)
    named = who.named_models()
    assert all(who.may_run(model) for model in named)
    assert len(named) == len(set(named))


def test_names_are_needed_if_any_list_restricts():
    """One list of three that names models is enough."""
    assert caller(("*",), ("a/x", "*")).may_run_anything
    assert not caller(("*",), ("a/*",)).may_run_anything
    assert not caller(("*/*",)).may_run_anything
    assert not caller(()).may_run_anything


def test_scopes_are_the_keys():
    """The team's further scopes are not the key's."""
    who = Caller(team=Team(name="red", scopes=frozenset(Scope)), key_id="k", scopes=frozenset({Scope.READ}), models=())
    assert who.may(Scope.READ)
    assert not who.may(Scope.PREDICT)


def test_predictions_are_visible_to_their_team_and_to_operators():
    """Only a key with the account scope sees another team's predictions."""
    assert caller().owns("red")
    assert not caller().owns("blue")
    assert caller(scopes=frozenset({Scope.ACCOUNT})).owns("blue")


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (("https://shop.example",), "https://shop.example", True),
        (("https://shop.example",), "HTTPS://Shop.Example", True),
        (("https://shop.example",), "http://shop.example", False),
        (("https://shop.example",), "https://shop.example.evil", False),
        (("https://shop.example",), "https://sub.shop.example", False),
        (("*",), "null", True),
        ((), "https://shop.example", False),
        (("https://shop.example",), "", False),
    ],
)
def test_page_is_matched_by_its_whole_origin(origins, origin, allowed):
    """An origin with an equal beginning or end is another page."""
    assert origin_allowed(origins, origin) is allowed


FEW, SOME, MANY = (Limits(requests_per_minute=number) for number in (1, 10, 100))


def limited(**more) -> Caller:
    team = Team(name="red", scopes=frozenset(), allowance=Allowance(own=MANY, per_user=SOME))
    return Caller(team=team, key_id="k", scopes=frozenset(), models=(), **more)


def test_request_counts_for_all_limited_subjects_widest_first():
    """Team, key, token, user and address: each within the one before, and none without a limit."""
    key = Allowance(own=SOME, per_user=FEW, per_address=FEW)
    everybody = limited(allowance=key, token_id="t", token_limits=FEW).subjects("ann", "192.0.2.1")
    assert everybody == (
        Subject(SubjectKind.TEAM, "red", MANY, "team"),
        Subject(SubjectKind.KEY, "k", SOME, "key"),
        Subject(SubjectKind.KEY, "k#t", FEW, "token"),
        Subject(SubjectKind.USER, "team red: ann", SOME, "user"),
        Subject(SubjectKind.USER, "key k: ann", FEW, "key-user"),
        Subject(SubjectKind.ADDRESS, "key k: 192.0.2.1", FEW, "key-address"),
    )
    assert limited().subjects("ann", "192.0.2.1") == (everybody[0], everybody[3])
    assert limited().subjects() == (everybody[0],)
    assert caller(("*",)).subjects("ann", "192.0.2.1") == ()
    tagged = replace(limited(), team=replace(limited().team, per_tag={"project": FEW}))
    of_tag = Subject(SubjectKind.TAG, "team red: project=a", FEW, "tag")
    assert tagged.subjects("ann", tags='{"project":"a"}') == (everybody[0], everybody[3], of_tag)


VALUES = st.from_regex(r"[A-Za-z0-9._~:/@+-]{1,8}", fullmatch=True)
KEYS = st.sampled_from(["a", "b", "c-1"])


@given(
    tags=st.dictionaries(KEYS, VALUES),
    for_each=st.dictionaries(KEYS, st.sampled_from([FEW, SOME])),
    for_one=st.dictionaries(st.tuples(KEYS, VALUES), st.sampled_from([SOME, MANY, UNLIMITED])),
    team=st.sampled_from(["red", "blue"]),
)
def test_limits_of_one_value_replace_those_of_each(tags, for_each, for_one, team):
    """Without tags no limit of a tag applies, and equal values of two tags or teams are different subjects."""
    # So that a value has limits of its own often enough.
    for_one |= {(key, value): UNLIMITED for key, value in tags.items() if len(value) == 1}
    per_tag = for_each | {f"{key}:{value}": limits for (key, value), limits in for_one.items()}
    found = {
        subject.id: subject.limits
        for subject in Team(name=team, scopes=frozenset(), per_tag=per_tag).limits_of_tags(text_of(tags))
    }
    expected = {
        f"team {team}: {key}={value}": limits
        for key, value in tags.items()
        if (limits := for_one.get((key, value), for_each.get(key, UNLIMITED))) != UNLIMITED
    }
    assert found == expected
    assert {of_limited(each) for each in found} <= set(tags.items())


def test_equal_users_of_two_teams_are_different():
    """The same name in another team, or at another key, is someone else."""
    key = Allowance(per_user=FEW)
    ids = [
        subject.id
        for who in (limited(allowance=key), limited())
        for name in ("red", "blue")
        for subject in Caller(
            team=Team(name=name, scopes=frozenset(), allowance=Allowance(per_user=FEW)),
            key_id=f"{name}-key",
            scopes=frozenset(),
            models=(),
            allowance=who.allowance,
        ).subjects("ann")
    ]
    assert len(ids) == 6
    assert len(set(ids)) == 4


def test_alias_in_a_list_is_what_it_stands_for():
    """Once, in the order of the list; what is no alias stays, also a pattern that an alias matches."""
    service, painter = (
        Target(TargetKind.DEPLOYMENT, "acme/service"),
        Target(TargetKind.VERSION, "acme/painter", "0" * 64),
    )
    team = Team(name="red", scopes=frozenset(), aliases={"acme/a": service, "acme/b": painter})
    assert team.without_aliases(["acme/b", "acme/*", "meta/llama", "acme/a", "acme/painter"]) == (
        "acme/painter", "acme/*", "meta/llama", "acme/service",
    )  # fmt: skip
