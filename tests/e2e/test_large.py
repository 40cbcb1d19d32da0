"""Large layers, one after the other and many at once, in bounded memory. The long form is tests/heavy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.large import MIB, peak_memory, side_by_side, there_and_back
from helpers.profiles import PROFILES, Profile, profile

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(params=PROFILES)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Profile]:
    """A registry for one test: its peak of memory is this test's."""
    with profile(request.param, {}, tmp_path / "server.log") as running:
        yield running


def test_a_layer_of_a_gibibyte_comes_back_in_little_memory(fresh: Profile) -> None:
    there_and_back(fresh, 1024 * MIB)
    assert peak_memory(fresh) < 150 * MIB


def test_twenty_pushes_at_once_share_one_budget(fresh: Profile) -> None:
    side_by_side(fresh, 20, 50 * MIB)
    assert peak_memory(fresh) < 400 * MIB
