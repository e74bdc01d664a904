"""What a caller may run, and which files may go into it."""

import json

import pytest

from gateway.access.policy import Policy
from gateway.domain.create_body import CreateBody
from gateway.domain.scopes import Scope
from gateway.domain.targets import Target, TargetKind, parse_version
from gateway.errors import Forbidden, Unprocessable, UpstreamTimeout
from gateway.models.versions import VersionMap
from tests.support.callers import RED, caller
from tests.support.fakes import FakeStore, FakeUpstream, answer
from tests.support.records import file

VERSION = "a" * 64
UPSTREAM = "https://api.replicate.com/v1"
OWN = "https://gw.example"
MINE, THEIRS, NOBODYS = "mine1234", "theirs1234", "nobodys1234"


@pytest.fixture
def policy(store: FakeStore, upstream: FakeUpstream, clock) -> Policy:
    store.uploaded = {MINE: file(MINE, team="red"), THEIRS: file(THEIRS, team="blue")}
    return Policy(VersionMap(store, upstream), store, clock, UPSTREAM)


@pytest.fixture
def unknown(upstream: FakeUpstream) -> FakeUpstream:
    """An upstream in which no version is anybody's."""
    upstream.script = lambda _: answer(404)
    return upstream


class TestTargets:
    """Allow-lists."""

    async def test_unrestricted_caller_needs_no_lookup(self, policy, store, upstream):
        """A bare version costs such a caller nothing."""
        await policy.check_target(caller(("*",), ("a/x", "*")), parse_version(VERSION))
        assert (store.calls, upstream.calls) == ([], [])

    @pytest.mark.parametrize("kind", [TargetKind.MODEL, TargetKind.DEPLOYMENT])
    async def test_target_must_match_every_list(self, kind, policy):
        """The key's list narrows the team's."""
        who = caller(("acme/*",), ("acme/flux", "other/x"))
        await policy.check_target(who, Target(kind, "acme/flux"))
        for refused in ("acme/dev", "other/x"):
            with pytest.raises(Forbidden, match=refused):
                await policy.check_target(who, Target(kind, refused))

    async def test_learned_version_counts_as_its_model(self, policy, store, upstream):
        """What was learned once costs no call."""
        store.versions[VERSION] = "acme/flux"
        await policy.check_target(caller(("acme/*",)), parse_version(VERSION))
        with pytest.raises(Forbidden, match="acme/flux"):
            await policy.check_target(caller(("other/*",)), parse_version(VERSION))
        assert upstream.calls == []

    async def test_model_name_before_a_version_proves_nothing(self, policy, store):
        """An allowed name before a version of another model grants nothing."""
        store.versions[VERSION] = "evil/x"
        with pytest.raises(Forbidden, match="evil/x"):
            await policy.check_target(caller(("acme/*",)), parse_version(f"acme/flux:{VERSION}"))

    async def test_unknown_version_is_looked_up_upstream(self, policy, upstream):
        """Upstream is asked whether it belongs to one of the listed models, and the answer is stored."""
        upstream.script = lambda call: answer(200 if call.path.startswith("/models/acme/b/") else 404)
        for _ in range(2):
            await policy.check_target(caller(("acme/a", "acme/b", "acme/*")), parse_version(VERSION))
        assert [call.path for call in upstream.calls] == [f"/models/acme/{name}/versions/{VERSION}" for name in "ab"]

    async def test_version_that_stays_unknown_is_refused_with_a_hint(self, policy, unknown):
        """The developer learns what to write instead."""
        with pytest.raises(Forbidden, match="owner/name:version"):
            await policy.check_target(caller(("acme/flux", "acme/*")), parse_version(VERSION))
        assert len(unknown.calls) == 1

    async def test_named_model_is_looked_up_first(self, policy, upstream):
        """`acme/flux:<id>` costs one request."""
        await policy.check_target(caller(("acme/*",)), parse_version(f"acme/flux:{VERSION}"))
        assert [call.path for call in upstream.calls] == [f"/models/acme/flux/versions/{VERSION}"]

    async def test_lookup_with_upstream_down_is_unavailable(self, policy, upstream):
        """The caller learns that upstream does not respond, not that the target is forbidden."""

        def away(_):
            raise UpstreamTimeout("Replicate did not answer in time.")

        upstream.script = away
        with pytest.raises(UpstreamTimeout):
            await policy.check_target(caller(("acme/flux",)), parse_version(VERSION))

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_throttled_lookup_is_no_refusal(self, status, policy, upstream):
        """A 403 would tell the caller to change a request that is right."""
        upstream.script = lambda _: answer(status)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which error is the mender's to say
            await policy.check_target(caller(("acme/flux",)), parse_version(VERSION))
        if isinstance(caught.value, Forbidden):
            raise caught.value

    def test_changing_a_model_needs_the_right_to_run_it(self, policy):
        """A training's destination is a target too."""
        policy.check_model(caller(("acme/*",)), "acme/mine")
        with pytest.raises(Forbidden, match="other/x"):
            policy.check_model(caller(("acme/*",)), "other/x")


class TestFiles:
    """Links of files in inputs."""

    async def translate(self, policy: Policy, value: object, **rights: object) -> object:
        body = CreateBody(input=json.dumps({"x": value}).encode())
        done, _ = await policy.translate_files(caller(**rights), body, frozenset({OWN}))
        return json.loads(done.input)["x"]

    @pytest.mark.parametrize("base", [f"{OWN}/v1", OWN, UPSTREAM, "http://localhost:8080/v1"])
    async def test_own_file_is_sent_by_upstreams_link(self, base, policy):
        """Whatever base URL the client used, the model can read the file."""
        link = f"{base}/files/{MINE}"
        assert await self.translate(policy, {"a": [link, "see " + link]}) == {
            "a": [f"{UPSTREAM}/files/{MINE}", "see " + link]
        }

    @pytest.mark.parametrize("file_id", [THEIRS, NOBODYS])
    @pytest.mark.parametrize(
        "base", [f"{OWN}/v1", UPSTREAM, "https://API.replicate.com:443/v1", "https://u@gw.example/v1"]
    )
    async def test_foreign_file_is_refused_as_unknown(self, file_id, base, policy):
        """Another team's file and a missing one get the same error, with its path in the input."""
        with pytest.raises(Unprocessable) as caught:
            await self.translate(policy, ["ok", {"img": f"{base}/files/{file_id}"}])
        assert [(f.type, f.field, f.description) for f in caught.value.fields] == [
            ("not_found", "input.x[1].img", "this file does not exist")
        ]

    @pytest.mark.parametrize("spelling", ["%s?x=1", "%s#x", "%s/", " %s", "%s==", "%s?" + "x" * 9000])
    async def test_foreign_file_is_refused_in_any_spelling(self, spelling, policy):
        """Upstream would read it with the account's rights."""
        with pytest.raises(Unprocessable):
            await self.translate(policy, spelling % f"{UPSTREAM}/files/{THEIRS}")
        with pytest.raises(Unprocessable):
            await self.translate(policy, spelling % f"{UPSTREAM}/%66iles/{THEIRS}")

    async def test_foreign_file_over_http_is_refused(self, policy):
        """`http` instead of `https` is the same file."""
        with pytest.raises(Unprocessable):
            await self.translate(policy, f"http://api.replicate.com/v1/files/{THEIRS}")

    async def test_links_to_other_hosts_are_unchanged(self, policy):
        """A link that resembles the gateway's by chance is sent as it is."""
        link = f"https://other.example/files/{NOBODYS}"
        assert await self.translate(policy, link) == link

    async def test_operator_may_use_the_accounts_files(self, policy):
        """A caller with the account scope may name its files, also by the links of the gateway's lists."""
        rights = {"scopes": frozenset({Scope.ACCOUNT}), "team": RED}
        for file_id in (THEIRS, NOBODYS):
            link = f"{UPSTREAM}/files/{file_id}"
            assert await self.translate(policy, link, **rights) == link
        link = f"{OWN}/v1/files/{NOBODYS}"
        assert await self.translate(policy, link, **rights) == f"{UPSTREAM}/files/{NOBODYS}"
        with pytest.raises(Unprocessable):
            await self.translate(policy, link, team=RED)

    async def test_input_without_links_costs_no_lookup(self, policy, store):
        """The store is asked only where there is something to ask."""
        body = CreateBody(input=b'{"x":[3e-06,"text"]}')
        assert await policy.translate_files(caller(), body, frozenset({OWN})) == (body, {})
        assert store.calls == []

    async def test_many_links_cost_one_lookup(self, policy, store):
        """Ten images do not cost ten reads."""
        await self.translate(policy, [f"{OWN}/v1/files/{MINE}"] * 10)
        assert store.calls == ["files_among"]

    async def test_records_of_many_files_are_read_in_parts(self, policy, store):
        """The metadata of a thousand files at once would be a gibibyte."""
        with pytest.raises(Unprocessable):
            await self.translate(policy, [f"{OWN}/v1/files/{MINE[:-3]}{number:03}" for number in range(50)])
        assert store.calls == ["files_among"] * 3

    async def test_odd_number_beside_a_foreign_file_is_no_crash(self, policy):
        """The input is refused for the file, not answered with 500."""
        body = CreateBody(input=b'{"n":1e999,"x":"%s/files/%s"}' % (UPSTREAM.encode(), THEIRS.encode()))
        with pytest.raises(Unprocessable):
            await policy.translate_files(caller(), body, frozenset({OWN}))
