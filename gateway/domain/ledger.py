"""Values of the ledger: entries, reservations, settlements, usage. Amounts are integer micro-dollars.

The team that started a run pays for it, under the key and user of that request. Predictions that joined the run or hit
its result cost nothing; their entries record what they saved.
"""

from enum import StrEnum
from functools import lru_cache

import msgspec

from gateway.domain import tags

OTHER = "other"
"""The name under which all users over `MOST_USERS_A_DAY` are counted."""
MOST_USERS_A_DAY = 1000
"""Users of a team that are counted by name per day. Bounded, because callers can make up user names."""
MOST_VALUES_A_DAY = 1000
"""Values of a cost tag that are counted by name per team and day, unless `[tags] max_values` is set."""
OTHER_VALUES = "(other)"
"""The value under which all others are counted. No request can have it."""


BETWEEN = "; "
"""Separates the run's status and the doubts about its charge in the reason of a settlement."""


class EntryKind(StrEnum):
    """The kind of an entry."""

    SPEND = "spend"
    """The cost of a run that has ended. Each run has exactly one."""
    SAVED_HIT = "saved_hit"
    """A hit; the amount is the cost of the finished run."""
    SAVED_JOINED = "saved_joined"
    """A joined prediction; the amount is the cost of the run it shares."""
    ADJUSTMENT = "adjustment"
    """A correction by an operator."""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The final charge of a run. It counts in the budget windows that contain `at`."""

    at: float
    microusd: int = 0
    milliseconds: int = 0
    target: str = ""
    """The model or deployment as named in usage."""
    reason: str = ""
    """The run's status, then doubts about the amount, separated by `BETWEEN`."""
    at_estimate: bool = False
    """Whether what was reserved is charged: nothing is known of the cost."""

    @property
    def status(self) -> str:
        """The status with which the run ended."""
        return self.reason.partition(BETWEEN)[0]

    def with_doubt(self, doubt: str) -> "Settlement":
        """Return the settlement with one more doubt about its amount."""
        return msgspec.structs.replace(self, reason=BETWEEN.join((self.reason, doubt)))


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the ledger. Entries are never changed."""

    at: float
    team: str
    key_id: str = ""
    user: str | None = None
    target: str = ""
    run_id: str | None = None
    prediction_id: str | None = None
    kind: EntryKind
    milliseconds: int = 0
    microusd: int = 0
    reason: str = ""
    scopes: tuple[str, ...] = ()
    """The scopes in whose budgets the amount counts as spent."""
    adjustment_id: str | None = None
    """Of a correction: two with the same id are one."""
    tags: str = ""
    """The cost tags of its prediction, as `gateway.domain.tags` writes them."""


class LedgerLine(msgspec.Struct, frozen=True):
    """An entry with its number. Later ones of a day have higher numbers."""

    id: int
    entry: Entry


class ChargeSum(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a day's entries of one kind, team, key, target and set of tags, and of a correction's reason."""

    day: int
    team: str
    key_id: str
    target: str
    kind: EntryKind
    tags: str
    note: str
    """The reason of a correction; otherwise empty."""
    count: int
    """Number of entries."""
    milliseconds: int
    microusd: int


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """The amounts that are held for a run until it is settled."""

    run_id: str
    team: str
    key_id: str
    user: str | None
    scopes: tuple[str, ...]
    """The counters that include it: see `gateway.domain.quota`."""
    milliseconds: int
    microusd: int
    at: float


class BudgetWarning(msgspec.Struct, frozen=True):
    """An alert about a budget. Each is given once."""

    team: str
    name: str
    """The budget: its name in the config, after its scope unless it is the team's."""
    day: int
    """The first day of the budget window."""
    percent: int
    """The threshold that was reached."""


class By(StrEnum):
    """What usage is grouped by."""

    TEAM = "team"
    DAY = "day"
    KEY = "key"
    MODEL = "model"
    USER = "user"
    TAG = "tag"
    """The values of one cost tag."""


class Grouping(msgspec.Struct, frozen=True):
    """What usage is grouped by; written as `day`, `user`, …, or `tag:project` for the values of the tag `project`."""

    by: By
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> "Grouping":
        """Read a grouping. Raise `ValueError` for anything else."""
        name, colon, tag = text.partition(":")
        by = By(name)
        if (by is By.TAG) != bool(colon) or (colon and not tags.KEY.fullmatch(tag)):
            raise ValueError("expected the name of a grouping, or tag:<key>")
        return cls(by, tag)

    def __str__(self) -> str:
        return f"{self.by}:{self.tag}" if self.tag else str(self.by)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over a group of entries."""

    team: str = ""
    what: str | int | None = None
    """The group: day number, key, model, user or value of a tag."""
    runs: int = 0
    joined: int = 0
    hits: int = 0
    milliseconds: int = 0
    microusd: int = 0
    saved_microusd: int = 0

    def without(self, part: "Usage") -> "Usage":
        """Return the usage of the same team that is not in a part of it."""
        return Usage(
            team=self.team,
            runs=self.runs - part.runs,
            joined=self.joined - part.joined,
            hits=self.hits - part.hits,
            milliseconds=self.milliseconds - part.milliseconds,
            microusd=self.microusd - part.microusd,
            saved_microusd=self.saved_microusd - part.saved_microusd,
        )


@lru_cache(maxsize=1024)
def model_of(target: str, named: str | None = None) -> str:
    """Return a run's target as named in usage: without its version.

    `named` is the model that upstream's document names. A bare version id without such a model is `unknown`.
    """
    model = target.partition(":")[0]
    return model if "/" in model else named or "unknown"
