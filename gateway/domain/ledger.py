"""The ledger's values: what was spent, what was saved, what was corrected. All amounts are integer micro-dollars.

The team that started a run pays for it, with the key and for the user of that request; predictions that joined it or
hit its result cost nothing, and are entered with what they saved.
"""

from enum import StrEnum

import msgspec

OTHER = "other"
"""Who is counted by name no more: users of a team beyond the bound on its day."""
MOST_USERS_A_DAY = 1000
"""Users of a team counted by name a day: enough to find out who spends, and a bound on what callers make up."""


BETWEEN = "; "
"""What stands between the status of a run and the doubts about its charge, in the reason of a settlement."""


class EntryKind(StrEnum):
    """Why an entry was made."""

    SPEND = "spend"
    """A run has ended: what it cost. Each run has exactly one."""
    SAVED_HIT = "saved_hit"
    """A prediction was answered from a finished run: what that run cost."""
    SAVED_JOINED = "saved_joined"
    """A prediction shared a run while that was under way: what the run cost."""
    ADJUSTMENT = "adjustment"
    """A correction by an operator."""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to, and when that was found: it counts in the windows of that time."""

    at: float
    microusd: int = 0
    milliseconds: int = 0
    target: str = ""
    """The model or deployment as usage names it."""
    reason: str = ""
    """How the amount came about."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger. Lines are only ever added."""

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
    """In whose budgets it counts as spent."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What is held for a run until it is settled."""

    run_id: str
    team: str
    key_id: str
    user: str | None
    scopes: tuple[str, ...]
    """By whom it is counted: see `gateway.domain.quota`."""
    milliseconds: int
    microusd: int
    at: float


class By(StrEnum):
    """What usage is summed up by."""

    TEAM = "team"
    DAY = "day"
    KEY = "key"
    MODEL = "model"
    USER = "user"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over some of the ledger."""

    team: str = ""
    what: str | int | None = None
    """The day (by number), key, model or user that it is of."""
    runs: int = 0
    joined: int = 0
    hits: int = 0
    milliseconds: int = 0
    microusd: int = 0
    saved_microusd: int = 0


def model_of(target: str, named: str | None = None) -> str:
    """Name a run's target as usage does: without its version; `named` is the model that upstream has told of.

    A bare version of which upstream tells no model is `unknown`.
    """
    model = target.partition(":")[0]
    return model if "/" in model else named or "unknown"
