"""Hash states that outlive their process."""

import hashlib
import json
import random
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tenure.storage.blobs import hashing
from tenure.storage.blobs.hashing import Hasher, resumable

ALGORITHMS = ("sha256", "sha512")

_OTHER_PROCESS = """
import json, sys
from tenure.storage.blobs.hashing import Hasher
for line in sys.stdin:
    state, rest, algorithms = json.loads(line)
    hasher = Hasher.load(bytes.fromhex(state), tuple(algorithms))
    hasher.update(bytes.fromhex(rest))
    print(json.dumps([hasher.digest(name).hex() for name in algorithms]))
"""


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    resumable.cache_clear()
    monkeypatch.setattr(hashing, "_library", lambda: None)
    yield
    resumable.cache_clear()


def resume_elsewhere(states: list[tuple[bytes, bytes, tuple[str, ...]]]) -> list[list[str]]:
    lines = "".join(json.dumps([state.hex(), rest.hex(), names]) + "\n" for state, rest, names in states)
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS], input=lines, capture_output=True, text=True, check=True, timeout=60
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_this_machine_can_resume() -> None:
    assert resumable()


def test_another_process_goes_on_at_every_offset() -> None:
    random_bytes = random.Random(7)
    content = random_bytes.randbytes(20_000)
    offsets = [*range(131), *(random_bytes.randrange(len(content)) for _ in range(60)), len(content)]
    states = []
    for offset in offsets:
        hasher = Hasher(ALGORITHMS)
        hasher.update(content[:offset])
        state = hasher.save()
        assert state is not None
        states.append((state, content[offset:], ALGORITHMS))
    wanted = [hashlib.new(name, content).hexdigest() for name in ALGORITHMS]
    assert resume_elsewhere(states) == [wanted] * len(offsets)


def test_one_of_two_algorithms_can_be_taken_up() -> None:
    hasher = Hasher(ALGORITHMS)
    hasher.update(b"first")
    resumed = Hasher.load(hasher.save(), ("sha512",))
    assert resumed is not None
    assert resumed.algorithms == ("sha512",)
    resumed.update(b"second")
    assert resumed.digest("sha512") == hashlib.sha512(b"firstsecond").digest()


def test_a_digest_does_not_end_the_hashing() -> None:
    hasher = Hasher(("sha256",))
    hasher.update(b"one")
    assert hasher.digest("sha256") == hashlib.sha256(b"one").digest()
    hasher.update(b"two")
    assert hasher.digest("sha256") == hashlib.sha256(b"onetwo").digest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nul_bytes_and_emptiness_are_hashed(algorithm: str) -> None:
    hasher = Hasher((algorithm,))
    hasher.update(b"")
    hasher.update(b"\0\0a\0")
    assert hasher.digest(algorithm) == hashlib.new(algorithm, b"\0\0a\0").digest()


def test_a_state_of_another_library_is_not_loaded() -> None:
    state = Hasher(("sha256",)).save()
    assert state is not None
    version = struct.unpack_from(">Q", state, 5)[0]
    other = state[:5] + struct.pack(">Q", version + 16) + state[13:]
    assert Hasher.load(state, ("sha256",)) is not None
    assert Hasher.load(other, ("sha256",)) is None


def test_damaged_states_are_not_loaded() -> None:
    state = Hasher(("sha256",)).save()
    assert state is not None
    fill_beyond_the_block = state[:-8] + (4096).to_bytes(4, sys.byteorder) + state[-4:]
    other_byte_order = state[:4] + bytes((3 - state[4],)) + state[5:]
    for damaged in (b"", b"x", state[:-1], state + b"x", b"TnH9" + state[4:], fill_beyond_the_block, other_byte_order):
        assert Hasher.load(damaged, ("sha256",)) is None
    assert Hasher.load(None, ("sha256",)) is None
    assert Hasher.load(state, ("sha512",)) is None


def test_without_libcrypto_hashlib_hashes_and_nothing_is_saved(without_library: None) -> None:
    assert not resumable()
    hasher = Hasher(ALGORITHMS)
    hasher.update(b"content")
    assert hasher.save() is None
    for name in ALGORITHMS:
        assert hasher.digest(name) == hashlib.new(name, b"content").digest()
    assert Hasher.load(b"anything", ("sha256",)) is None


def test_a_library_that_hashes_otherwise_fails_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    library = hashing._library()
    assert library is not None

    class Shifted:
        """Takes SHA-224 for SHA-256: same context, other digest."""

        def __getattr__(self, name: str) -> object:
            return getattr(library, name.replace("SHA256", "SHA224"))

    monkeypatch.setattr(hashing, "_library", Shifted)
    resumable.cache_clear()
    try:
        assert not resumable()
    finally:
        resumable.cache_clear()
