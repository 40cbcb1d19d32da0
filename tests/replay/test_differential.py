"""The same recordings against Debian's docker-registry: where the two answer otherwise, the reason is written down.

    pytest tests/replay/test_differential.py

Needs docker-registry 2.8 (apt-get install docker-registry); its absence is a failure.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.docker_engine import Missing
from helpers.serving import served
from helpers.tenure_process import free_port, process
from replay.player import play
from replay.tape import Exchange, Recording, load, recordings
from tenure.registry.plane import Plane

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

#: client, operation, request, Tenure's status and the other's, and why
KNOWN = Path(__file__).parent / "known_differences.json"
_KEYWORDS = ("manifests", "blobs", "referrers", "tags", "_catalog")

Difference = tuple[str, str, str, int, int]


@contextlib.contextmanager
def distribution(folder: Path) -> Iterator[str]:
    """An empty registry of the other kind, which may delete; its address."""
    if shutil.which("docker-registry") is None:
        raise Missing("docker-registry is not installed; apt-get install docker-registry")
    address = f"127.0.0.1:{free_port()}"
    config = folder / "config.json"  # JSON is YAML too
    config.write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"accesslog": {"disabled": True}, "level": "error"},
                "storage": {
                    "filesystem": {"rootdirectory": str(folder / "data")},
                    "delete": {"enabled": True},
                    "maintenance": {"uploadpurging": {"enabled": False}},
                },
                "http": {"addr": address},
            }
        )
    )
    command = ["docker-registry", "serve", str(config)]
    with process(command, address, folder / "log", environment=dict(os.environ), cwd=folder) as serving:
        yield f"http://{serving.address}"


def request_of(exchange: Exchange) -> str:
    """The method and what it is sent to, without names: new recordings have others."""
    if exchange.follows is not None:
        return f"{exchange.method} upload"
    path = exchange.target.partition("?")[0]
    if path.endswith("/blobs/uploads/"):
        return f"{exchange.method} uploads" + (" with mount" if "mount=" in exchange.target else "")
    kind = next((part for part in reversed(path.split("/")) if part in _KEYWORDS), path)
    if kind != "manifests":
        return f"{exchange.method} {kind}"
    return f"{exchange.method} manifest by {'digest' if 'sha256:' in path else 'tag'}"


async def compared(recording: Recording, ours: str, theirs: str) -> set[Difference]:
    """Where the statuses differ; 0 for a request that could not be sent, for want of a Location."""
    here, there = await play(ours, recording), await play(theirs, recording)
    return {
        (recording.client, exchange.operation, request_of(exchange), mine.status, other.status)
        for exchange, mine, other in zip(recording.exchanges, here, there, strict=True)
        if mine.status != other.status
    }


def known() -> dict[Difference, str]:
    rows = json.loads(KNOWN.read_text())
    return {(row[0], row[1], row[2], row[3], row[4]): row[5] for row in rows}


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
async def test_where_the_two_differ_is_known(small_plane: Plane, path: Path, tmp_path: Path) -> None:
    recording = load(path)
    with distribution(tmp_path) as theirs:
        async with served(small_plane) as running:
            found = await compared(recording, running.address, theirs)
    expected = {row for row in known() if row[0] == recording.client}
    assert sorted(found - expected) == [], "not known yet"
    assert sorted(expected - found) == [], "no difference any more"


def test_every_known_difference_says_why() -> None:
    assert all(len(reason.split()) > 4 for reason in known().values())
    assert {row[0] for row in known()} <= {load(path).client for path in recordings()}
