"""The registry of open streams."""

from typing import Any, cast

from gateway.domain.scopes import Scope
from gateway.domain.teams import Team
from gateway.http.sse.registry import OpenStreams
from gateway.runtime.live import LiveSettings
from gateway.streams.settings import StreamSettings
from tests.support.clock import ManualClock
from tests.support.observer import RecordingObserver

SETTINGS = StreamSettings(max_log_bytes=1, kept_log_bytes=1, heartbeat_seconds=15, max_total=1, max_per_team=1)


async def test_stream_that_is_asked_for_during_shutdown_is_not_refused():
    """It ends as soon as it is open, with `retry:`: after an error `EventSource` would not come again."""
    teams = {"alpha": Team(name="alpha", scopes=frozenset({Scope.READ}))}
    streams = OpenStreams(
        ManualClock(),
        cast("Any", RecordingObserver()),
        LiveSettings(SETTINGS),
        LiveSettings(teams),
        lambda _: None,
    )
    await streams.end()
    streams.take_place("alpha")
    assert streams.count("alpha") == 1
