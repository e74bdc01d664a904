"""Lines of the ledger, and the sums that change with each: parts of the steps that end runs and add hits."""

import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar
from zlib import crc32

import msgspec
from msgspec.structs import asdict, replace

from gateway.domain import ledger, quota, tags, windows
from gateway.domain.ledger import MOST_USERS_A_DAY, OTHER, OTHER_VALUES, BudgetWarning, Entry, EntryKind, Settlement
from gateway.domain.records import Prediction, Run
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.store.sql.reservations import release
from gateway.store.sql.rows import ENTRIES, PREDICTIONS

Joiner = tuple[str, str, str | None, str]
"""Whose prediction joined a run: team, key, user and tags."""

_OfModel = tuple[str, int, str, str]
"""Team, day, key and target of a sum."""
_OfUser = tuple[str, int, str]
"""Team, day and user of a sum; the user is empty if there is none."""
_OfTag = tuple[str, str, int, str]
"""Team, tag, day and value of a sum."""

KeyT = TypeVar("KeyT", bound=tuple[object, ...] | str)
ValueT = TypeVar("ValueT")

_DETACHED = "detached"
_NAMED = ("team", "tag", "day", "value")
_LOCKS_OF_NAMES = 256
_encode = msgspec.json.Encoder().encode
_SUMS = ("runs", "joined", "hits", "milliseconds", "microusd", "saved_microusd")
_NOTHING = dict.fromkeys(_SUMS, 0)


def settle(db: Database, run_id: str, settlement: Settlement, joined: Counter[Joiner] | None = None) -> bool:
    """Release the reservation of a run that has ended, and enter what it cost and what each joined prediction saved.

    Call it in the step that ends the run. `joined` counts the predictions that joined; they are read if it is `None`.
    A run is settled once: return whether this call did it.
    """
    held = release(db, run_id)
    payer = db.execute("payer", {"run_id": run_id}).fetchone()
    if payer is None:
        return False
    if settlement.at_estimate and held is not None:
        settlement = replace(settlement, microusd=held.microusd, milliseconds=held.milliseconds)
    team, key_id, user, leader_id, tagged = payer
    user = user if held is None else held.user
    scopes = quota.scopes_of(team, key_id, user, tagged) if held is None else held.scopes
    entry = Entry(
        at=settlement.at,
        team=team,
        key_id=key_id,
        user=user,
        target=settlement.target,
        run_id=run_id,
        prediction_id=leader_id or None,
        kind=EntryKind.SPEND,
        milliseconds=settlement.milliseconds,
        microusd=settlement.microusd,
        reason=settlement.reason,
        scopes=scopes,
        tags=tagged,
    )
    sums = _Sums()
    if not _insert_line(db, entry, sums):
        return False
    if joined is None:
        joined = Counter(db.execute("who_joined", {"run_id": run_id}))
    if joined:
        _enter_joined(db, run_id, settlement, joined, sums)
    sums.write(db)
    return True


def _enter_joined(db: Database, run_id: str, settlement: Settlement, joined: Counter[Joiner], sums: "_Sums") -> None:
    """Enter a line for each joined prediction, of which there may be thousands, in one statement."""
    day, saved = windows.day_of(settlement.at), settlement.microusd
    lines = {"run_id": run_id, "day": day, "at": settlement.at, "target": settlement.target, "microusd": saved}
    db.execute("enter_joined", lines)
    for (team, key_id, user, tagged), count in joined.items():
        sums.count((team, day, key_id, settlement.target), user, tagged, joined=count, saved_microusd=count * saved)


class NewHit(NamedTuple):
    """A prediction that was added to a run that has ended, and what its cache entry says."""

    prediction: Prediction
    run: Run
    at: float
    microusd: int
    """The run's cost, which the hit saves. The entry has it even if the ledger's line has been deleted."""
    settled_as: str
    """The target as the run was settled; empty if the ledger had no line."""


def enter_hits(db: Database, hits: Sequence[NewHit]) -> None:
    """Enter a line for each hit, and mark the cache entries as used. Each sum and each entry is changed once."""
    lines: list[tuple[int | float | str | None, ...]] = []
    by_model: dict[_OfModel, list[int]] = {}
    # In the order of the hits: the first users of a day are counted by name.
    by_user: dict[_OfUser, list[int]] = {}
    by_tag: dict[_OfTag, list[int]] = {}
    used: dict[str, float] = {}
    for prediction, run, at, microusd, settled_as in hits:
        day, target = windows.day_of(at), settled_as or ledger.model_of(run.target)
        team, key_id, user, tagged = prediction.team, prediction.key_id, prediction.user, prediction.tags
        lines.append((day, at, team, key_id, user, target, run.id, prediction.id, microusd, tagged))
        for sums in (
            by_model.setdefault((team, day, key_id, target), [0, 0]),
            by_user.setdefault((team, day, user or ""), [0, 0]),
            *(by_tag.setdefault((team, tag, day, value), [0, 0]) for tag, value in tags.pairs(tagged)),
        ):
            sums[0] += 1
            sums[1] += microusd
        used[run.id] = max(at, used.get(run.id, at))
    db.executemany("enter_hits", lines)
    lock_new_names(db, by_user, by_tag)
    for of_model, (count, saved) in _in_order(db, by_model):
        _count_model(db, of_model, _NOTHING | {"hits": count, "saved_microusd": saved})
    for (team, day, user), (count, saved) in _in_order(db, by_user):
        count_user(db, day, team, user, _NOTHING | {"hits": count, "saved_microusd": saved})
    _count_tags(db, {of: _NOTHING | {"hits": count, "saved_microusd": saved} for of, (count, saved) in by_tag.items()})
    db.executemany("use_entry", [{"run_id": run_id, "now": at} for run_id, at in _in_order(db, used)])


def take_back_join(db: Database, prediction: Prediction) -> None:
    """Take back the saved amount of a prediction that is removed from its run, if the run has been settled."""
    settled = settlement_of(db, prediction.run_id)
    if settled is None:
        return
    back = Entry(
        # The day of the line that it takes back.
        at=settled.at,
        team=prediction.team,
        key_id=prediction.key_id,
        user=prediction.user,
        target=settled.target,
        run_id=prediction.run_id,
        prediction_id=prediction.id,
        kind=EntryKind.SAVED_JOINED,
        microusd=-settled.microusd,
        reason=_DETACHED,
        tags=prediction.tags,
    )
    # The join was counted, and what is taken back goes where that is. The run is locked, which sets of hits lock later
    # than new names: a step that locks them in the other order could wait for one.
    sums = _Sums()
    _insert_line(db, back, sums)
    sums.write(db, has_new_names=False)


def settlement_of(db: Database, run_id: str) -> Entry | None:
    """Return the line that settled a run, or `None` if it has not been settled."""
    row = db.execute("settlement", {"run_id": run_id}).fetchone()
    return None if row is None else ENTRIES.record(row)


def joined_prediction(db: Database, prediction_id: str) -> Prediction | None:
    """Return a prediction if it joined its run."""
    row = db.execute("joined_prediction", {"id": prediction_id}).fetchone()
    return None if row is None else PREDICTIONS.record(row)


def insert_entry(db: Database, entry: Entry) -> bool:
    """Add one line, and count it in every sum. Return whether it was added.

    A run's second settlement is not, nor is a correction whose id is known.
    """
    sums = _Sums()
    is_added = _insert_line(db, entry, sums)
    sums.write(db)
    return is_added


def _insert_line(db: Database, entry: Entry, sums: "_Sums") -> bool:
    day = windows.day_of(entry.at)
    if db.execute("insert_entry", (day, *ENTRIES.row(entry))).rowcount == 0:
        return False
    amounts = {"milliseconds": entry.milliseconds, "microusd": entry.microusd}
    match entry.kind:
        case EntryKind.SPEND:
            counted = {"runs": 1, **amounts}
        case EntryKind.ADJUSTMENT:
            counted = amounts
        case EntryKind.SAVED_HIT:
            counted = {"hits": 1, "saved_microusd": entry.microusd}
        case EntryKind.SAVED_JOINED:
            counted = {"joined": 1 if not entry.reason else -1, "saved_microusd": entry.microusd}
    sums.count((entry.team, day, entry.key_id, entry.target), entry.user, entry.tags, **counted)
    sums.spent += [{"scope": scope, "day": day, **amounts} for scope in entry.scopes]
    return True


class _Sums:
    """What the lines of a step change in the sums: by model, by user, by tag and by scope, in this order."""

    def __init__(self) -> None:
        self._by_model: dict[_OfModel, dict[str, int]] = {}
        self._by_user: dict[_OfUser, dict[str, int]] = {}
        self._by_tag: dict[_OfTag, dict[str, int]] = {}
        self.spent: list[dict[str, str | int]] = []

    def count(self, of_model: _OfModel, user: str | None, tagged: str, **counted: int) -> None:
        team, day, _, _ = of_model
        for sums in (
            self._by_model.setdefault(of_model, dict(_NOTHING)),
            self._by_user.setdefault((team, day, user or ""), dict(_NOTHING)),
            *(self._by_tag.setdefault((team, tag, day, value), dict(_NOTHING)) for tag, value in tags.pairs(tagged)),
        ):
            for name, number in counted.items():
                sums[name] += number

    def write(self, db: Database, *, has_new_names: bool = True) -> None:
        """Write the sums. Pass `has_new_names=False` if the user and the values of tags were counted before."""
        if has_new_names:
            lock_new_names(db, self._by_user, self._by_tag)
        for of_model, sums in _in_order(db, self._by_model):
            _count_model(db, of_model, sums)
        for (team, day, user), sums in _in_order(db, self._by_user):
            count_user(db, day, team, user, sums)
        _count_tags(db, self._by_tag)
        for change in sorted(self.spent, key=operator.itemgetter("scope")):
            db.execute("spend", change)


def _in_order(db: Database, changes: dict[KeyT, ValueT]) -> Iterable[tuple[KeyT, ValueT]]:
    """Return what a step changes, sorted where other steps run at the same time: so none waits for another in a circle.

    Where they do not, the order stays: the first users of a day are counted by name.
    """
    return sorted(changes.items(), key=operator.itemgetter(0)) if db.is_shared else changes.items()


def _count_model(db: Database, of_model: _OfModel, sums: dict[str, int]) -> None:
    team, day, key_id, target = of_model
    db.execute("count_usage", {"team": team, "day": day, "key_id": key_id, "target": target, **sums})


def _count_tags(db: Database, by_tag: dict[_OfTag, dict[str, int]]) -> None:
    if by_tag:
        count_tags(db, [(of, sums) for of, sums in _in_order(db, by_tag)])


def lock_new_names(db: Database, of_users: Iterable[_OfUser], of_tags: Iterable[_OfTag]) -> None:
    """Lock users and values of tags that have no sum yet, where steps run at the same time. Call it before counting.

    Otherwise one could be counted by name in one step, and with others in another one, which does not see its row yet
    and finds no place for a further name. Then not all of it would be in one row.
    """
    if not db.is_shared:
        return
    known = db.bounds.known_names
    names = (*((team, "", day, user) for team, day, user in of_users), *of_tags)
    # A step with a NUL character, which PostgreSQL does not store, is refused later.
    asked = [each for each in names if each not in known and "\0" not in each[-1]]
    if not asked:
        return
    text = _encode([dict(zip(_NAMED, each, strict=True)) for each in asked]).decode()
    new = set(db.execute("new_names", {"asked": text}).fetchall())
    if new:
        # Few locks, since thousands can have joined a run, and a server has memory for some.
        db.lock(Lock.NEW_NAMES, *{str(crc32(repr(each).encode()) % _LOCKS_OF_NAMES) for each in new})
    db.bounds.remember_names([each for each in asked if each not in new])


def count_tags(db: Database, counted: Iterable[tuple[_OfTag, dict[str, int]]]) -> None:
    """Count something for values of tags: by name for the first of a team, tag and day, for the rest together."""
    bound = {"most": db.bounds.tag_values, "other": OTHER_VALUES}
    db.executemany(
        "count_tag",
        [
            {"team": team, "tag": tag, "day": day, "value": value, **bound, **sums}
            for (team, tag, day, value), sums in counted
        ],
    )


def add_warning(db: Database, warning: BudgetWarning) -> bool:
    """Record a budget warning; return whether it is new."""
    return db.execute("add_warning", asdict(warning)).rowcount > 0


def forget_users(db: Database, before: int, limit: int) -> int:
    """Count users of days before that together from now on; return how many went."""
    went = db.execute("old_users", {"before": before, "limit": limit}).fetchall()
    for team, day, user, *sums in went:
        db.execute("forget_user", {"team": team, "day": day, "user": user})
        count_user(db, day, team, OTHER, dict(zip(_SUMS, sums, strict=True)))
    return len(went)


def count_user(db: Database, day: int, team: str, user: str, sums: dict[str, int]) -> None:
    """Count something for a user: by name for the first of a team and day, for the rest together."""
    who = {"team": team, "day": day, "user": user, "most": MOST_USERS_A_DAY, "other": OTHER}
    db.execute("count_user", {**who, **sums})


def count_users(db: Database, day: int, counted: Iterable[tuple[str, str, dict[str, int]]]) -> None:
    """Count something for each of several users, in order: a team, the user's name, the sums."""
    bound = {"day": day, "most": MOST_USERS_A_DAY, "other": OTHER}
    db.executemany("count_user", [{"team": team, "user": user, **bound, **sums} for team, user, sums in counted])
