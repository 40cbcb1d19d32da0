"""What real clients said, said again without them: status and the headers they rely on are what they heard."""

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.recording import recording_proxy
from helpers.serving import served
from replay.condense import condense
from replay.player import differences, play
from replay.tape import SIZE_LIMIT, Contents, Recording, load, recordings
from tenure.registry.plane import Plane

#: without one of these the clients of most people are not looked at
NEEDED = {"cosign", "crane", "ctr", "docker", "helm", "oras", "podman", "regctl", "skopeo"}


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
async def test_a_client_is_answered_as_it_was(plane: Plane, path: Path) -> None:
    recording = load(path)
    async with served(plane) as running:
        assert differences(recording, await play(running.address, recording)) == []


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
async def test_a_replay_that_is_recorded_is_the_recording(small_plane: Plane, path: Path) -> None:
    """The proxy and the condensing lose nothing: which makes the recordings worth comparing with."""
    recording = load(path)
    async with served(small_plane) as running:
        host, _, port = running.address.removeprefix("http://").partition(":")
        async with recording_proxy(host, int(port)) as proxy:
            await play(f"http://{proxy.address}", recording)
            assert proxy.troubles == []
            again = condense(recording.client, recording.version, proxy.heard, proxy.address)
    assert _what_counts(again) == _what_counts(recording)


def _what_counts(recording: Recording) -> list[object]:
    """Connections are numbered as they come, and operations named by whoever records."""
    contents = Contents(recording.contents)
    found: list[object] = [contents.digest(name) for name in recording.contents]
    for exchange in recording.exchanges:
        found.append((replace(exchange, connection=0, operation="", headers=0), recording.headers[exchange.headers]))
    return found


def test_the_usual_clients_are_recorded_and_small() -> None:
    paths = recordings()
    assert {load(path).client for path in paths} >= NEEDED
    for path in paths:
        assert path.stem == load(path).name
        assert path.stat().st_size <= SIZE_LIMIT
        assert load(path).exchanges[-1].status in (200, 404), "each recording ends with what is not there"


@pytest.mark.parametrize(
    ("operation", "change", "complaint"),
    [
        ("push", {"status": 500}, "instead of 500"),
        ("push", {"answer": {"Docker-Content-Digest": "sha256:{c99}"}}, "Docker-Content-Digest"),
        ("push", {"answer": {"X-Not-There": "1"}}, "X-Not-There None"),
        ("list", {"json": '{"name": "skopeo/app", "tags": []}'}, "instead of"),
    ],
)
async def test_another_answer_is_a_difference(
    small_plane: Plane, operation: str, change: dict[str, object], complaint: str
) -> None:
    recording = load(next(path for path in recordings() if path.stem.startswith("skopeo")))
    made = {**recording.contents, "c99": recording.contents["c1"]}
    last = max(number for number, each in enumerate(recording.exchanges) if each.operation == operation)
    exchanges = list(recording.exchanges)
    exchanges[last] = replace(exchanges[last], **change)
    planted = replace(recording, contents=made, exchanges=exchanges)
    async with served(small_plane) as running:
        found = differences(planted, await play(running.address, planted))
    assert len(found) == 1
    assert complaint in found[0]


async def test_other_bytes_are_a_difference(small_plane: Plane) -> None:
    recording = load(next(path for path in recordings() if path.stem.startswith("skopeo")))
    pulled = next(number for number, each in enumerate(recording.exchanges) if each.content is not None)
    other = next(
        each.content for each in recording.exchanges if each.content not in (None, recording.exchanges[pulled].content)
    )
    exchanges = list(recording.exchanges)
    exchanges[pulled] = replace(exchanges[pulled], content=other)
    async with served(small_plane) as running:
        found = differences(replace(recording, exchanges=exchanges), await play(running.address, recording))
    assert len(found) == 1 and "other bytes" in found[0]
