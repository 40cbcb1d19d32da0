"""Whether this process can serve: asked of its dependencies in the background, answered from memory.

A probe never waits for a dependency, and one slow call does not take a replica out: a component counts as
down only after THRESHOLD failures in a row. `/livez` asks nothing at all: a database that is away is no reason
to restart the process.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from tenure.obs.log import scrub

#: seconds between two rounds
INTERVAL = 5.0
#: seconds a component may take to answer
LIMIT = 4.0
#: failures in a row after which a component counts as down
THRESHOLD = 3

Probe = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Component:
    """The last rounds of one dependency. `failures` counts those in a row; latency in seconds."""

    probe: Probe
    failures: int = THRESHOLD
    latency: float | None = None
    error: str = "not asked yet"

    @property
    def ready(self) -> bool:
        return self.failures < THRESHOLD


class Health:
    """The state of the components and of the process itself."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._components = {name: Component(probe) for name, probe in probes.items()}
        self.draining = False

    @property
    def ready(self) -> bool:
        return not self.draining and all(component.ready for component in self._components.values())

    def report(self) -> dict[str, Any]:
        """What `/readyz` shows."""
        return {
            "ready": self.ready,
            "status": "draining" if self.draining else "ready" if self.ready else "unready",
            "components": {name: _shown(component) for name, component in self._components.items()},
        }

    async def ask(self) -> None:
        """One round over all components at once."""
        await asyncio.gather(*(_ask(name, component) for name, component in self._components.items()))

    async def watch(self) -> None:
        """Rounds until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(INTERVAL)


async def _ask(name: str, component: Component) -> None:
    was_ready, was_asked = component.ready, component.latency is not None
    started = time.perf_counter()
    try:
        async with asyncio.timeout(LIMIT):
            await component.probe()
    # A probe may fail in any way its dependency can think of; each means the same here.
    except Exception as error:
        component.failures = min(component.failures + 1, THRESHOLD)
        component.error = scrub(str(error)) or type(error).__name__
        if was_ready and not component.ready:
            structlog.get_logger().error("component is down", component=name, error=component.error)
    else:
        component.failures, component.error = 0, ""
        if was_asked and not was_ready:
            structlog.get_logger().info("component is up", component=name)
    component.latency = time.perf_counter() - started


def _shown(component: Component) -> dict[str, Any]:
    latency = None if component.latency is None else round(component.latency * 1000, 3)
    shown: dict[str, Any] = {"ready": component.ready, "latency_ms": latency}
    if component.error:
        shown["error"] = component.error
    return shown
