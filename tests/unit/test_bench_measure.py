"""The bench's instruments: whose CPU, whose listener, which answers count."""

import contextlib
import importlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from helpers.tenure_process import NotServing, free_port, process

BENCH = Path(__file__).parents[2] / "bench"
#: Answers every request with 200 and two bytes; `python -c` this with the port.
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"ok")
    do_HEAD = do_GET
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("measure")


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    address = f"127.0.0.1:{port}"
    with process(command, address, folder / "log", environment={}, cwd=folder) as serving:
        yield serving.address, serving.pid


def test_a_tree_counts_its_children_and_a_gone_process_is_refused(measure: ModuleType) -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        running.stdout.readline()
        assert len(measure.process_tree(running.pid)) == 2
        assert measure.cpu_seconds(running.pid) >= 0.2
        assert measure.peak_memory(running.pid) > 1 << 20
        running.stdin.write("\n")
        running.stdin.close()
        running.wait()
        with pytest.raises(measure.NotMeasurable):
            measure.cpu_seconds(running.pid)


def test_a_listener_of_another_process_is_refused(measure: ModuleType, tmp_path: Path) -> None:
    with server(tmp_path) as (address, pid):
        measure.check_listener(pid, address)
        with socket.create_server(("127.0.0.1", 0)) as ours, pytest.raises(measure.NotMeasurable):
            measure.check_listener(pid, f"127.0.0.1:{ours.getsockname()[1]}")


def test_the_load_counts_answers_and_ends_at_a_wrong_one(tmp_path: Path) -> None:
    def load(address: str, method: str, path: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(BENCH / "load.py"), address, method, path, "3", "50"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with server(tmp_path) as (address, _):
        for method in ("GET", "HEAD"):
            assert json.loads(load(address, method, "/").stdout)["requests"] == 50
        wrong = load(address, "GET", "/missing")
    assert wrong.returncode == 1
    assert "404" in wrong.stderr


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no storage')"]
    with (
        pytest.raises(NotServing, match="no storage"),
        process(command, f"127.0.0.1:{free_port()}", tmp_path / "log", environment={}, cwd=tmp_path),
    ):
        pytest.fail("it cannot have answered")
