"""The load generator: keep-alive HTTP/1.1, one request under way per connection, in a process of its own.

`python bench/load.py HOST:PORT METHOD PATH CONNECTIONS REQUESTS` sends the same request over and over and prints
one line of JSON: seconds, requests, p50 and p99 in microseconds. Any answer but 200 ends it with exit code 1.
"""

import asyncio
import json
import re
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Sends the request again as soon as the answer is whole, while `budget` lasts."""

    def __init__(self, request: bytes, budget: list[int], latencies: list[float], done: asyncio.Future[None]) -> None:
        self.request, self.budget, self.latencies, self.done = request, budget, latencies, done
        self.bodiless = request.startswith(b"HEAD")
        self.buffer = b""
        self.missing = 0  # bytes of the body still to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
        else:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[: end + 2]
            length = _LENGTH.search(head)
            if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                self._fail(f"unexpected answer: {head.decode('latin-1')}")
                return
            body = 0 if self.bodiless else int(length[1])
            self.missing = body - (len(self.buffer) - end - 4)
            self.buffer = b""
        if self.missing == 0:
            self.latencies.append(time.perf_counter() - self.sent)
            self._send()
        elif self.missing < 0:
            self._fail("more bytes than announced")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"connection lost: {error}")

    def _send(self) -> None:
        if self.budget[0] <= 0:
            if not self.done.done():
                self.done.set_result(None)
            self.transport.close()
            return
        self.budget[0] -= 1
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def _fail(self, sentence: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(sentence))


async def load(address: str, method: str, path: str, connections: int, requests: int) -> dict[str, float]:
    """Sends `requests` requests over `connections` connections. Raises RuntimeError at the first wrong answer."""
    host, _, port = address.rpartition(":")
    accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address}", f"Accept: {accept}", "User-Agent: tenure-bench", "", ""]
    request = "\r\n".join(lines).encode()
    loop = asyncio.get_running_loop()
    budget, latencies = [requests], list[float]()
    ends = [loop.create_future() for _ in range(connections)]
    start = time.perf_counter()
    for done in ends:
        await loop.create_connection(lambda done=done: Connection(request, budget, latencies, done), host, int(port))  # type: ignore[misc]
    await asyncio.gather(*ends)
    seconds = time.perf_counter() - start
    latencies.sort()
    return {
        "seconds": seconds,
        "requests": len(latencies),
        "p50_us": latencies[len(latencies) // 2] * 1e6,
        "p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
    }


if __name__ == "__main__":
    where, verb, target, wide, many = sys.argv[1:]
    try:
        print(json.dumps(asyncio.run(load(where, verb, target, int(wide), int(many)))))
    except (RuntimeError, OSError) as error:
        sys.exit(f"load: {error}")
