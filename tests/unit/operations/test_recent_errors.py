"""What went wrong lately: remembered for an hour, and for each team by itself."""

from msgspec.structs import replace

from gateway.domain.records import Kind, Run, RunState, Status
from gateway.operations.recent_errors import LONGEST_DETAIL, PER_TEAM, RecentErrors
from gateway.runtime.live import LiveSettings
from tests.support.clock import ManualClock
from tests.support.live import RETENTION, named_teams
from tests.support.records import run_ended

RUN = Run(
    id="run_1", kind=Kind.PREDICTION, team="red", key_id="k", target="acme/toy", path="/predictions", request=b"",
    state=RunState.ENDED, status=Status.FAILED, leader_id="p1", intended_at=0.0, document=b'{"error":"CUDA"}',
)  # fmt: skip


def kept(clock: ManualClock) -> RecentErrors:
    return RecentErrors(named_teams("red", "blue"), clock, LiveSettings(RETENTION))


def test_one_team_does_not_displace_anothers_errors():
    """Nor does a stranger who tries keys all day."""
    recent_errors = kept(ManualClock())
    recent_errors.note("blue", "create", "no money")
    for number in range(PER_TEAM * 3):
        recent_errors.note("red", "create", str(number))
        recent_errors.note(None, "create", "who is it?")
        recent_errors.note("unheard of", "create", "a team that was")
    assert [each.detail for each in recent_errors.newest("blue", 10)] == ["no money"]
    assert len(recent_errors.newest("red", 1000)) == PER_TEAM
    assert len(recent_errors.newest(None, 1000)) == 2 * PER_TEAM + 1
    assert recent_errors.newest("unheard of", 10) == ()


def test_what_can_quote_an_input_is_hidden_with_it():
    """As long as `[console] show_data` is false. The gateway's own reasons are shown."""
    shows = [False]
    recent_errors = RecentErrors(
        named_teams("red"), ManualClock(), LiveSettings(RETENTION), shows_data=lambda: shows[0]
    )
    recent_errors.note("red", "create", "no money")
    recent_errors.note("red", "create", "input: a llama", is_upstreams=True)
    recent_errors.on_run_ended(run_ended(RUN))
    hidden = "Not shown: it can quote the input ([console] show_data)."
    assert sorted(each.detail for each in recent_errors.newest("red", 10)) == [hidden, hidden, "no money"]
    shows[0] = True
    assert sorted(each.detail for each in recent_errors.newest("red", 10)) == ["CUDA", "input: a llama", "no money"]


async def test_newest_errors_come_first_and_expire_after_an_hour():
    clock = ManualClock()
    recent_errors = kept(clock)
    recent_errors.note("red", "create", "old")
    await clock.advance(1800)
    recent_errors.note("blue", "create", "x" * 1000)
    found = recent_errors.newest(None, 10)
    assert [each.team for each in found] == ["blue", "red"]
    assert len(found[0].detail) == LONGEST_DETAIL
    assert recent_errors.newest(None, 1) == found[:1]
    await clock.advance(1801)
    assert [each.team for each in recent_errors.newest(None, 10)] == ["blue"]
    assert recent_errors.newest("red", 10) == ()


async def test_failed_run_is_listed_with_its_error():
    recent_errors = kept(ManualClock())
    recent_errors.on_run_ended(run_ended(replace(RUN, status=Status.SUCCEEDED)))
    recent_errors.on_run_ended(run_ended(RUN))
    recent_errors.on_run_ended(run_ended(replace(RUN, document=b"no JSON")))
    recent_errors.on_run_ended(run_ended(replace(RUN, document=b'{"error":null}')))
    found = recent_errors.newest("red", 10)
    assert sorted(each.detail for each in found) == ["CUDA", "Replicate gave no reason.", "Replicate gave no reason."]
    assert {(each.what, each.prediction) for each in found} == {("failed", "p1")}
