"""What became of a step whose connection was lost while it was committed.

Each transaction that writes notes its number in the table `commits`, in the row of its session, as part of the commit:
the note is there if and only if the step is. After a lost connection, another connection closes the session's row and
reads the number. The row is locked while the server still commits, so the answer waits for that, and a commit that
arrives after the row was closed fails. So a step is known to be done, and keeps its result, or is known not to be done,
and can run again. That holds for every step, whatever it does, and after a failover to a standby that has all that was
acknowledged.

To close the row is a commit of its own, which waits for the disk and for standbys as any other: what it reads is as
safe as what it confirms.
"""

import secrets
from typing import Final, NamedTuple

NOTE: Final = b"note_commit"
"""The function of the database that notes a step."""


class NumberedStep(NamedTuple):
    """A transaction: its session, which is one connection, and its number in it."""

    session: str
    number: int

    @classmethod
    def of_new_session(cls) -> "NumberedStep":
        """Return what comes before the first step of a session."""
        return cls(secrets.token_hex(16), 0)

    def next(self) -> "NumberedStep":
        """Return the step after this one."""
        return NumberedStep(self.session, self.number + 1)

    @property
    def commit(self) -> bytes:
        """What notes and commits the step, in one exchange with the server."""
        return b"SELECT %b('%b', %d); COMMIT" % (NOTE, self.session.encode(), self.number)

    @property
    def close_session(self) -> bytes:
        """What closes the session and returns the number of its last step."""
        return f"SELECT close_session('{self.session}')".encode()


NO_STEP: Final = NumberedStep("", 0)
