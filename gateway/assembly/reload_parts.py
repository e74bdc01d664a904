"""Opens what reloads the config, and records each config in the audit log."""

from collections.abc import Callable
from functools import partial

from gateway.assembly.apply_config import prepare
from gateway.assembly.build import Parts
from gateway.assembly.config_recorder import ConfigRecorder
from gateway.assembly.news import tell_reloads
from gateway.assembly.reload import Reloading
from gateway.config import Config
from gateway.http.ops.config_state import ConfigState
from gateway.runtime.loops import BackgroundLoop


async def open_reloading(parts: Parts, state: ConfigState, read: Callable[[], Config]) -> Reloading:
    """Return what reloads the config, and record the config of the start."""
    base = parts.base
    recorder = ConfigRecorder(base.store, partial(base.secret, "audit"), base.clock)
    base.keep_running(recorder.run, BackgroundLoop.CONFIG_RECORDS)
    await recorder.loaded(base.config)
    reloading = Reloading(
        base.config,
        state,
        base.clock,
        base.metrics,
        read=read,
        prepare=partial(prepare, base.live),
        recorder=recorder,
    )
    tell_reloads(parts, reloading)
    return reloading
