"""Each config that takes effect is in the audit log, also if the store was away."""

import asyncio
from typing import Any

import pytest

from gateway.assembly.config_recorder import ConfigRecorder
from gateway.config import Config, from_mapping
from gateway.config.changes import diff
from gateway.config.content import content_of
from gateway.domain.audit import Values
from gateway.errors import StoreUnavailable
from tests.support.audit import FakeAuditLog
from tests.support.clock import ManualClock, settle
from tests.support.polling import until


class Recorded(FakeAuditLog):
    """Keeps what is recorded, while it is not away."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.configs: list[tuple[str, Values, Values, float]] = []

    async def record_config(self, digest: str, before: Values, after: Values, at: float) -> bool:
        """Record it, or fail."""
        if self.is_away:
            raise StoreUnavailable("The store is away.")
        self.configs.append((digest, before, after, at))
        return True


def config_of(token: str = "r8_" + "a" * 37, **sections: Any) -> Config:
    return from_mapping(sections, {"REPLICATE_API_TOKEN": token})


@pytest.fixture
def audit() -> Recorded:
    return Recorded()


@pytest.fixture
def recorder(audit: Recorded, clock: ManualClock) -> ConfigRecorder:
    async def secret() -> bytes:
        return b"secret"

    return ConfigRecorder(audit, secret, clock)


async def test_changes_are_recorded_by_path(recorder: ConfigRecorder, audit: Recorded, clock: ManualClock):
    old, new = config_of(), config_of(logs={"level": "debug"})
    await recorder.loaded(old)
    await recorder.loaded(new, diff(old, new))
    (first, *nothing), (second, before, after, at) = audit.configs
    assert nothing[:2] == [{}, {}]
    assert (before, after, at) == ({"logs.level": '"info"'}, {"logs.level": '"debug"'}, clock.now())
    assert first != second


async def test_what_could_not_be_recorded_is_recorded_later_in_order(recorder, audit, clock):
    """The reload takes effect all the same."""
    task = asyncio.create_task(recorder.run())
    audit.is_away = True
    await recorder.loaded(config_of(), diff(config_of(), config_of(logs={"level": "debug"})))
    await recorder.loaded(config_of(), diff(config_of(logs={"level": "debug"}), config_of()))
    await settle()
    await clock.advance(5)
    assert audit.configs == []
    audit.is_away = False
    await clock.advance(5)
    await until(lambda: len(audit.configs) == 2)
    assert [after for _, _, after, _ in audit.configs] == [{"logs.level": '"debug"'}, {"logs.level": '"info"'}]
    task.cancel()


def test_configs_are_equal_but_for_addresses_of_listeners():
    """Nodes of one host differ in them."""
    same = config_of(server={"port": 1}, ops={"port": 2})
    assert content_of(config_of()) == content_of(same)
    for other in (config_of(logs={"level": "debug"}), config_of("r8_" + "b" * 37)):
        assert content_of(config_of()) != content_of(other)


def test_content_has_no_secret():
    assert b"r8_" not in content_of(config_of())
