"""Teams and callers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.limits import Allowance, Limits, Subject, SubjectKind
from gateway.domain.scopes import Scope
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
