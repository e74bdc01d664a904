"""What became of a prediction, put together from records."""

from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from gateway.domain import times
from gateway.domain.admission_record import Admitted, Limit, admitted, held
from gateway.domain.hold import Hold
from gateway.domain.ledger import Entry, EntryKind
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, ReservationRequest, RunLimits, rate_status
from gateway.domain.rates import Rate
from gateway.domain.records import Copy, Kind, Prediction, PredictionView, Run, RunState, Source, Status
from gateway.money.rules.pricing import Charge, Part, Price, Unit
from gateway.operations.rules.explain import Priced, TimelineEvent, explain, of_delivery
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind, DeliveryState

NOW = 1_764_000_000.0
DAY = Limit("budget_usd_per_day", SubjectKind.TEAM, LimitKind.DOLLARS, 5_000_000)
PER_MINUTE = Limit("predictions_per_minute", SubjectKind.KEY, LimitKind.RATE, 30)
DOCUMENT = (
    f'{{"id":"up1","status":"succeeded","started_at":"{times.render(NOW + 3)}",'
    f'"completed_at":"{times.render(NOW + 5)}"}}'
).encode()
PRICE = Price(per_second=Decimal("0.1"))
CHARGE = Charge(200_000, 2000, (Part(Unit.SECOND, Decimal(2), Decimal("0.1")),))
SETTLED = Entry(at=NOW + 6, team="red", run_id="run_1", kind=EntryKind.SPEND, microusd=200_000, reason="succeeded")
PRICED = Priced(basis=PRICE, charge=CHARGE, settled=SETTLED)


def run(**fields: Any) -> Run:
    given = {
        "id": "run_1",
        "kind": Kind.PREDICTION,
        "team": "red",
        "key_id": "k1",
        "target": "acme/toy",
        "path": "/predictions",
        "request": b"{}",
        "state": RunState.ENDED,
        "status": Status.SUCCEEDED,
        "upstream_id": "up1",
        "leader_id": "up1",
        "document": DOCUMENT,
        "intended_at": NOW,
        "live_at": NOW + 1,
        "ended_at": NOW + 5,
        "fingerprint": "F",
    }
    return Run(**given | fields)


def prediction(**fields: Any) -> Prediction:
    given = {
        "id": "up1",
        "run_id": "run_1",
        "kind": Kind.PREDICTION,
        "team": "red",
        "key_id": "k1",
        "source": Source.MISS,
        "created_at": NOW + 0.5,
        "ticket": "t",
        "ticket_expires_at": NOW + 3600,
        "reason": "seed",
        "admitted": Admitted(300_000, 3000, (DAY, PER_MINUTE), 1.5, PER_MINUTE),
    }
    return Prediction(**given | fields)


def reported(made: Prediction | None = None, of: Run | None = None, priced: Priced = PRICED, **more: Any) -> Any:
    given = {"key_name": "default", "owns_run": True} | more
    return explain(PredictionView(made or prediction(), of or run()), priced, **given)


def story(answer: Any) -> list[tuple[float, str]]:
    return [(round(times.parse(each["at"]) - NOW, 3), each["what"]) for each in answer["timeline"]]


def test_unshared_run_is_explained_from_create_to_settlement():
    answer = reported()
    assert story(answer) == [
        (-1.5, "asked"),
        (0.0, "waited"),
        (0.0, "reserved"),
        (0.5, "created"),
        (1.0, "recorded"),
        (3.0, "started"),
        (5.0, "ended"),
        (6.0, "settled"),
    ]
    assert answer["timeline"][1]["detail"] == "1.500 seconds for predictions_per_minute of the key"
    assert answer["timeline"][2]["detail"] == "$0.300000 and 3 seconds"
    assert answer["run"] == {"id": "run_1", "upstream_id": "up1", "status": "succeeded"}
    assert answer["source"] == "run"
    assert (answer["deterministic"], answer["reason"], answer["fingerprint"]) == (True, "seed", "F")
    assert answer["key"] == {"id": "k1", "name": "default"}
    assert answer["limits"] == {
        "passed": [
            {"name": "budget_usd_per_day", "of": "team", "limit": "5.000000", "limit_microusd": 5_000_000},
            {"name": "predictions_per_minute", "of": "key", "limit": 30},
        ],
        "waited_for": {"name": "predictions_per_minute", "of": "key", "limit": 30},
        "waited_seconds": 1.5,
    }


def test_reserved_and_charged_money_is_shown_in_parts():
    price = reported()["price"]
    assert price == {
        "basis": {"usd_per_second": "0.1", "origin": "rule"},
        "parts": [{"unit": "second", "quantity": "2", "usd_each": "0.1", "usd": "0.2"}],
        "doubts": [],
        "estimate_usd": "0.300000",
        "estimate_microusd": 300_000,
        "charged_usd": "0.200000",
        "charged_microusd": 200_000,
        "saved_usd": "0.000000",
        "saved_microusd": 0,
    }


def test_parts_that_do_not_sum_to_the_ledger_are_hidden():
    """Prices have changed since: what the ledger says was charged is what was charged."""
    settled = replace(SETTLED, microusd=150_000, reason="failed; time-odd")
    price = reported(priced=replace(PRICED, settled=settled))["price"]
    assert price["parts"] is None
    assert price["charged_usd"] == "0.150000"
    assert price["doubts"] == ["time-odd"]


def test_run_in_progress_has_cost_nothing_yet():
    going = run(state=RunState.LIVE, status=Status.PROCESSING, ended_at=None, document=b'{"started_at":"nonsense"}')
    answer = reported(of=going, priced=Priced(basis=PRICE))
    assert answer["price"]["charged_usd"] is None
    assert answer["price"]["parts"] is None
    assert [what for _, what in story(answer)] == ["asked", "waited", "reserved", "created", "recorded"]


def test_shared_prediction_shows_what_was_saved():
    for source, word in ((Source.JOINED, "joined"), (Source.HIT, "hit")):
        answer = reported(prediction(id="p2", source=source, created_at=NOW + 2, admitted=None))
        assert answer["source"] == word
        price = answer["price"]
        assert (price["estimate_microusd"], price["charged_microusd"], price["saved_microusd"]) == (0, 0, 200_000)
        assert (NOW + 2 - NOW, word) in story(answer)


def test_run_of_another_team_shows_no_ids_or_history():
    """Only what happened while the caller's own prediction lived; after its cancel, nothing of the run."""
    joined = prediction(id="p2", team="blue", source=Source.JOINED, created_at=NOW + 2, admitted=None)
    answer = reported(joined, owns_run=False)
    assert answer["run"] == {"id": None, "upstream_id": None, "status": "succeeded"}
    assert story(answer) == [(2.0, "joined"), (3.0, "started"), (5.0, "ended"), (6.0, "settled")]
    left = reported(replace(joined, canceled_at=NOW + 4, final_status=Status.CANCELED), owns_run=False)
    assert left["run"]["status"] == left["status"] == "canceled"
    assert story(left) == [(2.0, "joined"), (3.0, "started"), (4.0, "canceled")]
    assert left["price"]["parts"] is None
    for each in (answer, left):
        assert "up1" not in str(each)
        assert "run_1" not in str(each)


def test_hit_on_another_teams_run_shows_only_itself():
    hit = prediction(id="p2", team="blue", source=Source.HIT, created_at=NOW + 60, admitted=None)
    assert story(reported(hit, owns_run=False)) == [(60.0, "hit")]


def test_other_parts_add_to_the_timeline():
    """Webhook deliveries and output copies appear in their place."""
    answer = reported(further=[TimelineEvent(NOW + 4, "delivered", "start, attempt 1")])
    assert story(answer)[-3:] == [(4.0, "delivered"), (5.0, "ended"), (6.0, "settled")]


def test_waiting_copies_and_webhooks_have_their_lines():
    """A receiver that accepts nothing is seen here, with its response."""
    first = Copy(place=0, url="u", content_type="image/png", sha256="0", size=10, stored_at=NOW + 7)
    copied: Any = reported(of=run(copies=(first, replace(first, place=1, stored_at=NOW + 8))))
    assert copied["timeline"][-1] == {
        "at": times.render(NOW + 8),
        "what": "outputs stored",
        "detail": "files: 2, bytes: 20",
    }
    message = Delivery(
        id="msg_1", kind=DeliveryKind.PREDICTION, team="red", url="https://x.example", receiver="x", created_at=NOW + 5
    )  # fmt: skip
    assert list(of_delivery(message)) == [TimelineEvent(NOW + 5, "webhook queued")]
    dead = replace(message, attempts=8, error="it answered 500", state=DeliveryState.DEAD, dead_at=NOW + 900)
    assert list(of_delivery(dead)) == [
        TimelineEvent(NOW + 5, "webhook queued", "attempts: 8, last error: it answered 500"),
        TimelineEvent(NOW + 900, "webhook given up", "it answered 500"),
    ]


def test_old_record_without_a_reason_says_so():
    answer = reported(prediction(reason="", admitted=None), priced=Priced(basis=PRICE, charge=CHARGE))
    assert (answer["deterministic"], answer["reason"]) == (False, None)
    assert story(answer)[0] == (0.0, "asked")
    assert answer["price"]["estimate_usd"] is None
    assert answer["price"]["charged_usd"] is None
    assert answer["limits"]["passed"] == []


def test_cancel_and_uncertain_create_have_their_lines():
    left = prediction(canceled_at=NOW + 2, final_status=Status.ABORTED)
    odd = run(
        uncertain_at=NOW + 0.7,
        unreadable_since=NOW + 2,
        cancel_asked_at=NOW + 2,
        status=Status.CANCELED,
        document=b"no JSON",
    )
    words = [what for _, what in story(reported(left, odd))]
    assert words[3:] == [
        "created",
        "uncertain",
        "recorded",
        "aborted",
        "unreadable",
        "cancel asked",
        "ended",
        "settled",
    ]


def test_admission_is_shown_without_what_did_not_apply():
    rate = Rate.of(30, None)
    allowances = (
        RunLimits(of=SubjectKind.TEAM, scope="team/red", microusd_per_day=5_000_000),
        RunLimits(of=SubjectKind.KEY, scope="key/k1", predictions=rate),
    )
    demand = ReservationRequest(300_000, 3000, allowances)
    hold = Hold()
    assert admitted(demand, hold) == Admitted(300_000, 3000, (DAY, PER_MINUTE), 0.0, None)
    assert held(hold) is None
    standing = LimitStatus(
        name="predictions_per_minute", of=SubjectKind.KEY, scope="key/k1", kind=LimitKind.RATE, limit=30, used=5,
        held=0, remaining=0, resets_at=None,
    )  # fmt: skip
    hold.add(1.0, standing)
    hold.add(0.5, rate_status("requests_per_minute", SubjectKind.TEAM, 60))
    assert admitted(demand, hold) == Admitted(300_000, 3000, (DAY, PER_MINUTE), 1.5, PER_MINUTE)
    assert held(hold) == Admitted(0, 0, (), 1.5, PER_MINUTE)


def test_limit_of_a_cost_tag_is_shown_with_its_tag():
    """A prediction has several tags."""
    of_tag = RunLimits(of=SubjectKind.TAG, scope="tag/team red: project=apollo", microusd_per_day=5_000_000)
    (limit,) = admitted(ReservationRequest(1, 1, (of_tag,)), Hold()).limits
    # The version before tags had limits reads this record too, from a store that both serve from.
    assert limit == Limit("budget_usd_per_day", SubjectKind.TEAM, LimitKind.DOLLARS, 5_000_000, "project=apollo")
    assert (limit.whose, DAY.whose) == (SubjectKind.TAG, SubjectKind.TEAM)
