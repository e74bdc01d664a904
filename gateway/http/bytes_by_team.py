"""Counts bytes that are in memory, by the team that they are held for."""


class BytesByTeam:
    """The bytes that the teams hold, in all and of each."""

    def __init__(self) -> None:
        self.used = 0
        self._by_team: dict[str, int] = {}

    def of(self, team: str) -> int:
        """Return the bytes of one team."""
        return self._by_team.get(team, 0)

    def add(self, team: str, size: int) -> None:
        """Count bytes of a team; negative when they are gone."""
        self.used += size
        left = self._by_team[team] = self.of(team) + size
        if not left:
            del self._by_team[team]
