"""Transfers too large to hold: content made from a seed while it is sent, and checked by its digest on the way back."""

import hashlib
import http.client
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from helpers.profiles import Profile

MIB = 1 << 20
#: What docker writes as one chunk, and what containerd hands to the connection at once, bytes.
DOCKER_PIECE, CONTAINERD_PIECE = 32 << 10, MIB
#: Seconds without a byte.
PATIENCE = 300


@dataclass(frozen=True, slots=True)
class Made:
    """`size` bytes that follow from `seed`; no two seeds and no two pieces of one seed are alike."""

    seed: int
    size: int

    def pieces(self, length: int) -> Iterator[memoryview]:
        """The content in order. Each piece is valid until the next one is asked for."""
        block = bytearray(random.Random(self.seed).randbytes(length))
        for number, start in enumerate(range(0, self.size, length)):
            block[:8] = number.to_bytes(8)
            yield memoryview(block)[: self.size - start]


class Refused(Exception):
    """The registry did not do what a client of its kind relies on."""


def push_like_docker(address: str, repository: str, made: Made) -> str:
    """POST, one chunked PATCH, an empty PUT that names the digest, which is returned."""
    hashed = hashlib.sha256()

    def body() -> Iterator[memoryview]:
        for piece in made.pieces(DOCKER_PIECE):
            hashed.update(piece)
            yield piece

    location = _begin(address, repository)
    location = _call(address, "PATCH", location, 202, body())["Location"]
    digest = f"sha256:{hashed.hexdigest()}"
    _call(address, "PUT", _closing(location, digest), 201)
    return digest


def push_like_containerd(address: str, repository: str, made: Made) -> str:
    """POST, one PUT with everything. The digest, which must be known beforehand, is returned."""
    hashed = hashlib.sha256()
    for piece in made.pieces(CONTAINERD_PIECE):
        hashed.update(piece)
    digest = f"sha256:{hashed.hexdigest()}"
    _call(
        address,
        "PUT",
        _closing(_begin(address, repository), digest),
        201,
        made.pieces(CONTAINERD_PIECE),
        {"Content-Length": str(made.size), "Content-Type": "application/octet-stream"},
    )
    return digest


def pull(address: str, repository: str, digest: str, size: int) -> None:
    """Raises Refused unless exactly the bytes of `digest` come."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    hashed, seen, buffer = hashlib.sha256(), 0, memoryview(bytearray(MIB))
    try:
        connection.request("GET", f"/v2/{repository}/blobs/{digest}")
        answer = connection.getresponse()
        while count := answer.readinto(buffer):
            hashed.update(buffer[:count])
            seen += count
    finally:
        connection.close()
    if answer.status != 200 or seen != size or digest != f"sha256:{hashed.hexdigest()}":
        raise Refused(f"GET of {digest}: status {answer.status}, {seen} of {size} bytes, sha256 {hashed.hexdigest()}")


def there_and_back(registry: Profile, size: int) -> None:
    """One layer of `size` bytes as docker pushes it and one as containerd does, each pulled again."""
    for number, push in enumerate((push_like_docker, push_like_containerd)):
        digest = push(registry.address, f"large/{number}", Made(size + number, size))
        pull(registry.address, f"large/{number}", digest, size)


def side_by_side(registry: Profile, count: int, size: int) -> None:
    """`count` different layers pushed at the same time, every other one as docker does it, then all pulled."""
    work = [(f"parallel/{number}", Made(number, size)) for number in range(count)]

    def push(number: int) -> str:
        name, made = work[number]
        return (push_like_docker, push_like_containerd)[number % 2](registry.address, name, made)

    with ThreadPoolExecutor(count) as clients:
        digests = list(clients.map(push, range(count)))
        pulled = clients.map(
            lambda number: pull(registry.address, work[number][0], digests[number], size), range(count)
        )
        assert len(list(pulled)) == count


def peak_memory(registry: Profile) -> int:
    """The most that Tenure's process ever held resident, from its start, in bytes."""
    assert not Path(f"/proc/{registry.pid}/task/{registry.pid}/children").read_text(), "Tenure has other processes too"
    for line in Path(f"/proc/{registry.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the system does not tell the memory of process {registry.pid}")


def _begin(address: str, repository: str) -> str:
    return _call(address, "POST", f"/v2/{repository}/blobs/uploads/", 202)["Location"]


def _closing(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def _call(
    address: str,
    method: str,
    target: str,
    wanted: int,
    body: Iterator[memoryview] | None = None,
    headers: dict[str, str] | None = None,
) -> http.client.HTTPMessage:
    parts = urlsplit(target)
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request(
            method, f"{parts.path}{'?' if parts.query else ''}{parts.query}", body, headers or {}, encode_chunked=False
        )
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != wanted:
            raise Refused(f"{method} {target}: {answer.status} {said[:500]!r}, wanted {wanted}")
        return answer.headers
    finally:
        connection.close()
