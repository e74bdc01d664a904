"""Counts the request bodies that are in memory."""

SMALL_BODY = 65_536
"""Bytes of a body that is not counted."""


class BodyMemory:
    """The request bodies in memory, in bytes, by team. Small ones are not counted and never refused."""

    def __init__(self) -> None:
        self.used = 0
        self._by_team: dict[str, int] = {}

    def of(self, team: str) -> int:
        """Return the bytes of one team."""
        return self._by_team.get(team, 0)

    def add(self, team: str, size: int) -> None:
        """Count a body of a team, or the part of it that is new; negative when it is gone."""
        self.used += size
        left = self._by_team[team] = self.of(team) + size
        if not left:
            del self._by_team[team]
