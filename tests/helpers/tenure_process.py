"""`tenure serve` as a process of its own, on a free port of the loopback address."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Seconds from the start of the process to its first answer, on a machine that does other things too.
START_LIMIT = 60
#: Seconds from SIGTERM to the end; the drain has nothing left to wait for by then.
STOP_LIMIT = 30


class NotServing(Exception):
    """A server ended or kept silent instead of answering; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that has answered: its address as HOST:PORT and its process."""

    address: str
    pid: int
    log: Path


@contextlib.contextmanager
def tenure(data_dir: Path, settings: Mapping[str, str], log: Path) -> Iterator[Serving]:
    """Serves with `settings` (TENURE_* and whatever the store's client reads) and nothing else of Tenure's.

    Raises NotServing.
    """
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tenure", "serve", "--listen", address, "--data-dir", str(data_dir)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    # The working directory is the data's, so that no tenure.toml of the clone is read.
    data_dir.mkdir(parents=True, exist_ok=True)
    scheme = "https" if "TENURE_SERVER_TLS_CERT" in settings else "http"
    with process(
        command, address, log, environment={**environment, **settings}, cwd=data_dir, scheme=scheme
    ) as serving:
        yield serving


@contextlib.contextmanager
def process(
    command: list[str],
    address: str,
    log: Path,
    *,
    environment: Mapping[str, str],
    cwd: Path,
    scheme: str = "http",
) -> Iterator[Serving]:
    """Any registry's server, from its start until `GET /v2/` is answered, ended with SIGTERM. Raises NotServing."""
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=dict(environment), cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(server, f"{scheme}://{address}", log)
        yield Serving(address, server.pid, log)
        if server.poll() is not None:
            raise NotServing(f"{command[0]} ended with {server.returncode} while it was needed\n{_end(log)}")
    finally:
        server.terminate()
        try:
            server.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    # Whether the certificate is good is for the tests to say; here it only matters that somebody answers.
    context = ssl._create_unverified_context() if url.startswith("https:") else None
    ends = time.monotonic() + START_LIMIT
    while time.monotonic() < ends:
        if server.poll() is not None:
            raise NotServing(f"the server ended with {server.returncode} before it answered\n{_end(log)}")
        try:
            with urllib.request.urlopen(f"{url}/v2/", timeout=5, context=context):
                return
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise NotServing(f"nothing answered on {url} within {START_LIMIT} s\n{_end(log)}")


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
