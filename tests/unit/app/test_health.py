"""When a replica counts as ready."""

import asyncio

import pytest

from tenure.app import health
from tenure.app.health import THRESHOLD, Health


class Dependency:
    """Answers or fails as told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds = 0.0

    async def __call__(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error


@pytest.fixture
def store() -> Dependency:
    return Dependency()


async def test_nothing_is_ready_before_it_was_asked(store: Dependency) -> None:
    state = Health({"store": store})
    assert not state.ready
    assert state.report()["components"]["store"]["error"] == "not asked yet"
    await state.ask()
    assert state.ready


async def test_one_failure_does_not_take_a_replica_out(store: Dependency) -> None:
    state = Health({"store": store})
    await state.ask()
    store.error = ConnectionError("s3://k:hush@b is away")
    for _ in range(THRESHOLD - 1):
        await state.ask()
        assert state.ready
    await state.ask()
    assert not state.ready
    shown = state.report()
    assert shown["ready"] is False and shown["status"] == "unready"
    assert shown["components"]["store"]["error"] == "s3://k:***@b is away"
    store.error = None
    await state.ask()
    assert state.ready and "error" not in state.report()["components"]["store"]


async def test_a_slow_answer_counts_as_a_failure(store: Dependency, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LIMIT", 0.01)
    state = Health({"store": store})
    await state.ask()
    store.seconds = 1
    for _ in range(THRESHOLD):
        await state.ask()
    assert not state.ready
    assert state.report()["components"]["store"]["error"] == "TimeoutError"


async def test_a_draining_process_is_unready_at_once(store: Dependency) -> None:
    state = Health({"store": store})
    await state.ask()
    state.draining = True
    assert not state.ready
    assert state.report()["status"] == "draining"


async def test_each_component_tells_its_latency(store: Dependency) -> None:
    state = Health({"store": store, "database": Dependency()})
    await state.ask()
    components = state.report()["components"]
    assert set(components) == {"store", "database"}
    assert all(component["latency_ms"] >= 0 for component in components.values())
