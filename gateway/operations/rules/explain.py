"""Explain how a prediction was handled, from its records (docs/architecture.md, Operations).

A run of another team is shown without its ids, and without events before this prediction's creation or after its end
for its caller: a team that shares a run learns nothing about the other teams (docs/architecture.md, Invariants 2).
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gateway.domain import documents, money, tags, times
from gateway.domain.admission_record import Admitted, Limit
from gateway.domain.ledger import BETWEEN, Entry
from gateway.domain.limits import OWN_OF_PAGES
from gateway.domain.quota import LimitKind
from gateway.domain.records import Prediction, PredictionView, Run, Source
from gateway.money.rules import refusals
from gateway.money.rules.pricing import Charge, Part, Price
from gateway.sharing.rules.determinism import Proof
from gateway.webhooks.rules.deliveries import Delivery

_SHOWN = {Source.MISS: "run", Source.BYPASS: "run", Source.JOINED: "joined", Source.HIT: "hit"}
_PROOFS = frozenset(Proof)


class TimelineEvent(msgspec.Struct, frozen=True):
    """One entry of a prediction's timeline. `what` is from a closed set, `detail` is text for people."""

    at: float
    what: str
    detail: str = ""


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """The price and cost of a run."""

    basis: Price
    """The current price."""
    charge: Charge | None = None
    """The charge of the run by the current price; `None` while the run is in progress."""
    settled: Entry | None = None
    """The ledger's entry, which is authoritative; `None` while the run is not settled."""


def explain(
    view: PredictionView,
    priced: Priced,
    *,
    key_name: str | None,
    owns_run: bool,
    shows_team: bool = True,
    further: Iterable[TimelineEvent] = (),
) -> dict[str, object]:
    """Return the explanation in the JSON form of the API.

    `owns_run` says whether the run belongs to the caller's team, `shows_team` whether the caller may see limits other
    than those of its user and address. `further` are events of this prediction from other
    services.
    """
    prediction, run = view.prediction, view.run
    events = [*_of_prediction(prediction, run), *_of_run(run, priced.settled), *further]
    if not owns_run:
        end = prediction.canceled_at if prediction.canceled_at is not None else float("inf")
        events = [each for each in events if prediction.created_at <= each.at <= end]
        if prediction.canceled_at is not None:
            # What the run did later concerns other teams only.
            priced = msgspec.structs.replace(priced, charge=None)
    return {
        "prediction": prediction.id,
        "status": documents.shown_status(view),
        "target": run.target,
        "key": {"id": prediction.key_id, "name": key_name},
        "user": prediction.user,
        "tags": tags.mapping(prediction.tags),
        "run": {
            "id": run.id if owns_run else None,
            "upstream_id": run.upstream_id if owns_run else None,
            "status": run.status if owns_run else documents.shown_status(view),
        },
        "source": _SHOWN[prediction.source],
        "deterministic": prediction.reason in _PROOFS,
        "reason": prediction.reason or None,
        "fingerprint": run.fingerprint,
        "limits": _limits(prediction.admitted, shows_team=shows_team),
        "price": _price(prediction, priced),
        "timeline": _timeline(events),
    }


def _of_prediction(prediction: Prediction, run: Run) -> Iterator[TimelineEvent]:
    match prediction.source:
        case Source.HIT:
            yield from _waited(prediction.admitted, prediction.created_at)
            yield TimelineEvent(prediction.created_at, "hit", "answered from a finished run")
        case Source.JOINED:
            yield from _waited(prediction.admitted, prediction.created_at)
            yield TimelineEvent(prediction.created_at, "joined", "attached to a run in progress")
        case Source.MISS | Source.BYPASS:
            yield from _started(prediction.admitted, run.intended_at)
            yield TimelineEvent(prediction.created_at, "created", "by Replicate's clock")
    if prediction.canceled_at is not None:
        yield TimelineEvent(prediction.canceled_at, str(prediction.final_status), "ended for this caller")


def _started(admitted: Admitted | None, intended_at: float) -> Iterator[TimelineEvent]:
    if admitted is None:
        yield TimelineEvent(intended_at, "asked")
        return
    yield TimelineEvent(intended_at - admitted.waited_seconds, "asked")
    yield from _waited(admitted, intended_at)
    held = f"${money.usd(admitted.microusd)} and {admitted.milliseconds / money.MILLISECONDS_PER_SECOND:g} seconds"
    yield TimelineEvent(intended_at, "reserved", held)


def _waited(admitted: Admitted | None, at: float) -> Iterator[TimelineEvent]:
    if admitted is not None and admitted.waited_for is not None:
        limit = admitted.waited_for
        of = f"{limit.whose} {limit.tag}" if limit.tag else limit.whose
        yield TimelineEvent(at, "waited", f"{admitted.waited_seconds:.3f} seconds for {limit.name} of the {of}")


def _of_run(run: Run, settled: Entry | None) -> Iterator[TimelineEvent]:
    if run.uncertain_at is not None:
        yield TimelineEvent(run.uncertain_at, "uncertain", "Replicate may have accepted the create; searching for it")
    if run.live_at is not None:
        yield TimelineEvent(run.live_at, "recorded", "Replicate's response to the create")
    started_at, completed_at = documents.times_of(run.document)
    if started_at is not None:
        yield TimelineEvent(started_at, "started", "by Replicate's clock")
    if run.unreadable_since is not None:
        yield TimelineEvent(run.unreadable_since, "unreadable", "Replicate's answers about the run cannot be read")
    if run.cancel_asked_at is not None:
        yield TimelineEvent(run.cancel_asked_at, "cancel asked", "all callers had cancelled, so Replicate was asked to")
    if run.ended_at is not None:
        at = run.ended_at if completed_at is None else completed_at
        by = ", by Replicate's clock" if completed_at is not None else ""
        yield TimelineEvent(at, "ended", f"{run.status}{by}")
    if settled is not None:
        yield TimelineEvent(settled.at, "settled")
    if run.copies:
        size = sum(each.size for each in run.copies)
        stored_at = max(each.stored_at for each in run.copies)
        yield TimelineEvent(stored_at, "outputs stored", f"files: {len(run.copies)}, bytes: {size}")


def of_delivery(delivery: Delivery) -> Iterator[TimelineEvent]:
    """Yield the events of a delivery that was not accepted yet. Accepted ones are deleted from the store."""
    attempts = f"attempts: {delivery.attempts}" + (f", last error: {delivery.error}" if delivery.error else "")
    yield TimelineEvent(delivery.created_at, "webhook queued", attempts if delivery.attempts else "")
    if delivery.dead_at is not None:
        yield TimelineEvent(delivery.dead_at, "webhook given up", delivery.error or "")


def _timeline(events: Sequence[TimelineEvent]) -> list[dict[str, str]]:
    # The sort is stable, so events of the same time keep their order. Replicate's clock can differ from the gateway's.
    ordered = sorted(events, key=lambda each: each.at)
    return [
        {"at": times.render(each.at), "what": each.what} | ({"detail": each.detail} if each.detail else {})
        for each in ordered
    ]


def _limits(admitted: Admitted | None, *, shows_team: bool) -> dict[str, object]:
    if admitted is None:
        return {"passed": [], "waited_for": None, "waited_seconds": 0.0}
    waited_for = admitted.waited_for
    if waited_for is not None and not shows_team and waited_for.whose not in OWN_OF_PAGES:
        waited_for = None
    return {
        "passed": [_limit(each) for each in admitted.limits if shows_team or each.whose in OWN_OF_PAGES],
        "waited_for": None if waited_for is None else _limit(waited_for),
        "waited_seconds": round(admitted.waited_seconds, 3),
    }


def _limit(limit: Limit) -> dict[str, object]:
    body: dict[str, object] = {"name": limit.name, "of": limit.whose}
    if limit.tag:
        body["tag"], _, body["value"] = limit.tag.partition("=")
    body["limit"] = refusals.amount(limit.kind, limit.limit)
    return body | ({"limit_microusd": int(limit.limit)} if limit.kind is LimitKind.DOLLARS else {})


def _price(prediction: Prediction, priced: Priced) -> dict[str, object]:
    """Return what was reserved, charged and saved. Unknown amounts and those not settled yet are null."""
    settled, admitted = priced.settled, prediction.admitted
    shares = prediction.source in (Source.JOINED, Source.HIT)
    cost = None if settled is None else settled.microusd
    # The ledger is authoritative. The parts are shown only if the current prices give the same amount.
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
