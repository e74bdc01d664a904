"""What became of a prediction, and why, from what the records know (docs/architecture.md, Operations).

A run that another team started is shown without its ids, and without anything that happened before this prediction was
asked for or after it ended for its caller: who shares a run learns of the others nothing but its result
(docs/architecture.md, Invariants 2).
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gateway.domain import documents, money, times
from gateway.domain.admission_record import Admitted, Limit
from gateway.domain.ledger import BETWEEN, Entry
from gateway.domain.quota import LimitKind
from gateway.domain.records import Prediction, PredictionView, Run, Source
from gateway.money.rules import refusals
from gateway.money.rules.pricing import Charge, Part, Price
from gateway.sharing.rules.determinism import Proof
from gateway.webhooks.rules.deliveries import Delivery

_SHOWN = {Source.MISS: "run", Source.BYPASS: "run", Source.JOINED: "joined", Source.HIT: "hit"}
_PROOFS = frozenset(Proof)


class Happening(msgspec.Struct, frozen=True):
    """One line of a prediction's story. `what` is a token, `detail` a phrase for people."""

    at: float
    what: str
    detail: str = ""


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """What the run came to, and by which price."""

    basis: Price
    """The price as it is now."""
    charge: Charge | None = None
    """What that price makes of the run; `None` while it is under way."""
    settled: Entry | None = None
    """The ledger's line. What it says is what counts."""


def explain(
    view: PredictionView, priced: Priced, *, key_name: str | None, owns_run: bool, further: Iterable[Happening] = ()
) -> dict[str, object]:
    """Put the answer together.

    `owns_run`: whether the run's ids are the caller's to see. `further` is told by others, of this prediction alone.
    """
    prediction, run = view.prediction, view.run
    story = [*_of_prediction(prediction, run), *_of_run(run, priced.settled), *further]
    if not owns_run:
        end = prediction.canceled_at if prediction.canceled_at is not None else float("inf")
        story = [each for each in story if prediction.created_at <= each.at <= end]
        if prediction.canceled_at is not None:
            # What the run did afterwards is the others' affair.
            priced = msgspec.structs.replace(priced, charge=None)
    return {
        "prediction": prediction.id,
        "status": documents.shown_status(view),
        "target": run.target,
        "key": {"id": prediction.key_id, "name": key_name},
        "user": prediction.user,
        "run": {
            "id": run.id if owns_run else None,
            "upstream_id": run.upstream_id if owns_run else None,
            "status": run.status if owns_run else documents.shown_status(view),
        },
        "source": _SHOWN[prediction.source],
        "deterministic": prediction.reason in _PROOFS,
        "reason": prediction.reason or None,
        "fingerprint": run.fingerprint,
        "limits": _limits(prediction.admitted),
        "price": _price(prediction, priced),
        "timeline": _timeline(story),
    }


def _of_prediction(prediction: Prediction, run: Run) -> Iterator[Happening]:
    match prediction.source:
        case Source.HIT:
            yield Happening(prediction.created_at, "hit", "answered from a run that had ended")
        case Source.JOINED:
            yield Happening(prediction.created_at, "joined", "attached to a run under way")
        case Source.MISS | Source.BYPASS:
            yield from _led(prediction.admitted, run.intended_at)
            yield Happening(prediction.created_at, "created", "upstream's time")
    if prediction.canceled_at is not None:
        yield Happening(prediction.canceled_at, str(prediction.final_status), "ended for its caller")


def _led(admitted: Admitted | None, intended_at: float) -> Iterator[Happening]:
    if admitted is None:
        yield Happening(intended_at, "asked")
        return
    yield Happening(intended_at - admitted.waited_seconds, "asked")
    if admitted.waited_for is not None:
        limit, seconds = admitted.waited_for, admitted.waited_seconds
        yield Happening(intended_at, "waited", f"{seconds:.3f} seconds for {limit.name} of the {limit.of}")
    held = f"${money.usd(admitted.microusd)} and {admitted.milliseconds / money.MILLISECONDS_PER_SECOND:g} seconds"
    yield Happening(intended_at, "reserved", held)


def _of_run(run: Run, settled: Entry | None) -> Iterator[Happening]:
    if run.uncertain_at is not None:
        yield Happening(run.uncertain_at, "uncertain", "upstream may have taken the create; it is looked for")
    if run.live_at is not None:
        yield Happening(run.live_at, "recorded", "upstream's answer to the create")
    started_at, completed_at = documents.times_of(run.document)
    if started_at is not None:
        yield Happening(started_at, "started", "upstream's time")
    if run.cancel_asked_at is not None:
        yield Happening(run.cancel_asked_at, "cancel asked", "of upstream: nobody waited for the run any more")
    if run.ended_at is not None:
        at = run.ended_at if completed_at is None else completed_at
        yield Happening(at, "ended", f"{run.status}, upstream's time" if completed_at is not None else str(run.status))
    if settled is not None:
        yield Happening(settled.at, "settled")
    if run.copies:
        size = sum(each.size for each in run.copies)
        stored_at = max(each.stored_at for each in run.copies)
        yield Happening(stored_at, "outputs stored", f"files: {len(run.copies)}, bytes: {size}")


def of_delivery(delivery: Delivery) -> Iterator[Happening]:
    """Tell of a message that was not taken yet. One that was is no longer kept."""
    tries = f"tries: {delivery.attempts}" + (f", the last: {delivery.error}" if delivery.error else "")
    yield Happening(delivery.created_at, "webhook queued", tries if delivery.attempts else "")
    if delivery.dead_at is not None:
        yield Happening(delivery.dead_at, "webhook given up", delivery.error or "")


def _timeline(story: Sequence[Happening]) -> list[dict[str, str]]:
    # Of what happened at one time, the order is that of the telling. Upstream's clock may differ from ours.
    ordered = sorted(story, key=lambda each: each.at)
    return [
        {"at": times.render(each.at), "what": each.what} | ({"detail": each.detail} if each.detail else {})
        for each in ordered
    ]


def _limits(admitted: Admitted | None) -> dict[str, object]:
    if admitted is None:
        return {"passed": [], "waited_for": None, "waited_seconds": 0.0}
    return {
        "passed": [_limit(each) for each in admitted.limits],
        "waited_for": None if admitted.waited_for is None else _limit(admitted.waited_for),
        "waited_seconds": round(admitted.waited_seconds, 3),
    }


def _limit(limit: Limit) -> dict[str, object]:
    body: dict[str, object] = {"name": limit.name, "of": limit.of, "limit": refusals.amount(limit.sort, limit.limit)}
    return body | ({"limit_microusd": int(limit.limit)} if limit.sort is LimitKind.DOLLARS else {})


def _price(prediction: Prediction, priced: Priced) -> dict[str, object]:
    """Show what was held, charged and saved: money that nobody knows of, or that is not settled yet, is null."""
    settled, admitted = priced.settled, prediction.admitted
    shares = prediction.source in (Source.JOINED, Source.HIT)
    cost = None if settled is None else settled.microusd
    # The ledger stands. Where today's prices make something else of the run, how they do is beside the point.
    agrees = settled is not None and priced.charge is not None and priced.charge.microusd == settled.microusd
    return {
        "basis": priced.basis.shown(),
        "parts": [_part(part) for part in priced.charge.parts] if agrees and priced.charge is not None else None,
        "doubts": [] if settled is None else settled.reason.split(BETWEEN)[1:],
        **_amount("estimate", 0 if shares else None if admitted is None else admitted.microusd),
        **_amount("charged", 0 if shares else cost),
        **_amount("saved", cost if shares else 0),
    }


def _part(part: Part) -> dict[str, str]:
    return {
        "unit": part.unit,
        "quantity": f"{part.quantity:f}",
        "usd_each": f"{part.usd_each:f}",
        "usd": f"{part.usd:f}",
    }


def _amount(name: str, microusd: int | None) -> dict[str, object]:
    return {f"{name}_usd": None if microusd is None else money.usd(microusd), f"{name}_microusd": microusd}
