"""A running registry for the tests of the protocol."""

from collections.abc import AsyncIterator

import pytest

from helpers.serving import served
from tenure.registry.plane import Plane


@pytest.fixture
async def base(plane: Plane) -> AsyncIterator[str]:
    """The address of a registry on each profile, empty."""
    async with served(plane) as running:
        yield running.address


@pytest.fixture
async def small(small_plane: Plane) -> AsyncIterator[str]:
    """The same on SQLite and a folder only, where the stores do not matter."""
    async with served(small_plane) as running:
        yield running.address
