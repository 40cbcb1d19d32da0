"""The long form of tests/e2e/test_large.py: layers of 5 GiB, and a hundred pushes at once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.large import MIB, peak_memory, side_by_side, there_and_back
from helpers.profiles import PROFILES, Profile, profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

#: What both layers need in a store, with room for what is deleted later.
ROOM = 15 * 1024 * MIB


@pytest.fixture(params=PROFILES)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Profile]:
    """A registry for one test: its peak of memory is this test's. What it kept is removed with it."""
    left = shutil.disk_usage(tmp_path).free
    assert left >= ROOM, f"{left // MIB} MiB are free under {tmp_path}, {ROOM // MIB} are needed"
    with profile(request.param, {}, tmp_path / "server.log") as running:
        yield running


def test_a_layer_of_five_gibibytes_comes_back_in_little_memory(fresh: Profile) -> None:
    there_and_back(fresh, 5 * 1024 * MIB)
    assert peak_memory(fresh) < 150 * MIB


def test_a_hundred_pushes_at_once_share_one_budget(fresh: Profile) -> None:
    side_by_side(fresh, 100, 50 * MIB)
    assert peak_memory(fresh) < 400 * MIB
