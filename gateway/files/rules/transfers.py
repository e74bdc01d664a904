"""Bounds of file transfers between callers and upstream: how many at once.

A transfer holds a connection to upstream for as long as its caller takes, so without bounds one caller could hold them
all (docs/limits.md, Uploads and downloads).
"""

from enum import StrEnum

import msgspec


class Direction(StrEnum):
    """Uploads and downloads have bounds and upstream connections of their own."""

    UPLOADS = "uploads"
    DOWNLOADS = "downloads"


class Bound(StrEnum):
    """Which bound refuses a transfer: of all teams, of one team, or of one public credential."""

    TOTAL = "total"
    TEAM = "team"
    PUBLIC_KEY = "public_key"


class TransferSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many transfers of one direction may be in progress."""

    max_uploads: int = 100
    max_downloads: int = 100
    max_per_team: int = 32
    max_per_public_key: int = 8

    def total(self, direction: Direction) -> int:
        """Return the bound of all teams together."""
        return self.max_uploads if direction is Direction.UPLOADS else self.max_downloads

    def value(self, bound: Bound, direction: Direction) -> int:
        """Return the value of a bound."""
        match bound:
            case Bound.PUBLIC_KEY:
                return self.max_per_public_key
            case Bound.TEAM:
                return self.max_per_team
            case Bound.TOTAL:
                return self.total(direction)


WAITING_PER_PLACE = 4
"""Transfers over a bound wait for a place: up to this many for each place of the bound. More are refused at once."""


class Count(msgspec.Struct, frozen=True):
    """Number of transfers of one direction, in progress or waiting."""

    total: int
    of_team: int
    of_public_key: int | None
    """`None` for a server's key."""


def reached(settings: TransferSettings, direction: Direction, count: Count, *, times: int = 1) -> Bound | None:
    """Return the bound that leaves no room for one more transfer, the narrowest first.

    `times` is 1 for transfers in progress, and `WAITING_PER_PLACE` for those that wait.
    """
    if count.of_public_key is not None and count.of_public_key >= settings.max_per_public_key * times:
        return Bound.PUBLIC_KEY
    if count.of_team >= settings.max_per_team * times:
        return Bound.TEAM
    return Bound.TOTAL if count.total >= settings.total(direction) * times else None
