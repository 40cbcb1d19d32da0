"""The process: one owner, an orderly end, roles, health, TLS, and sentences where it cannot start."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from helpers.databases import NewDatabaseUrl
from helpers.tenure_process import free_port

#: seconds a process may take to start or to end, on a machine that runs other tests too
PATIENCE = 60.0
HALF = b"x" * 300_000


@dataclass(slots=True)
class Server:
    process: subprocess.Popen[bytes]
    address: str
    log: Path
    tls: ssl.SSLContext | None = None

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers, body."""
        if self.tls:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.address, timeout=PATIENCE, context=self.tls
            )
        else:
            connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("GET", "/readyz")[2])
        return found

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def said(self) -> str:
        return self.log.read_text()

    def accepts(self) -> bool:
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            return False
        return True


def command(data: Path, address: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "tenure", "serve", "--listen", address, "--data-dir", str(data), *more]


def clean(settings: dict[str, str]) -> dict[str, str]:
    """The environment without anything that sets Tenure up, and `settings`."""
    return {name: text for name, text in os.environ.items() if not name.startswith("TENURE_")} | settings


@contextmanager
def serving(folder: Path, settings: dict[str, str], *more: str, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server that is ready, ended when the block ends."""
    address = f"127.0.0.1:{free_port()}"
    log = folder / f"{address}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(folder / "data", address, *more), stdout=output, stderr=subprocess.STDOUT,
            env=clean(settings), cwd=folder,
        )  # fmt: skip
    server = Server(process, address, log, tls)
    try:
        until(lambda: process.poll() is not None or answers(server, "/readyz", 200))
        assert process.poll() is None, server.said()
        yield server
    finally:
        process.kill()
        process.wait()


def answers(server: Server, path: str, status: int) -> bool:
    try:
        return server.ask("GET", path)[0] == status
    except (OSError, http.client.HTTPException):
        return False


def until(condition: Any) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.05)


def refused(folder: Path, address: str, settings: dict[str, str], *more: str) -> tuple[int, str]:
    """Exit code and what was said by a server that should not start."""
    ran = subprocess.run(
        command(folder / "data", address, *more), env=clean(settings), cwd=folder, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    return ran.returncode, ran.stderr


@contextmanager
def half_an_upload(server: Server) -> Iterator[socket.socket]:
    """A PATCH whose first half is sent."""
    status, headers, _ = server.ask("POST", "/v2/some/app/blobs/uploads/")
    assert status == 202
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        head = (
            f"PATCH {headers['location']} HTTP/1.1\r\nHost: {server.address}\r\nContent-Length: {2 * len(HALF)}\r\n\r\n"
        )
        connection.sendall(head.encode() + HALF)
        time.sleep(0.3)
        yield connection


def test_sigterm_lets_a_running_upload_finish(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server, half_an_upload(server) as connection:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not server.accepts())
        time.sleep(0.5)
        connection.sendall(HALF)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 202
        assert answer.getheader("Range") == f"0-{2 * len(HALF) - 1}"
        assert server.ended() == 0


def test_what_was_acknowledged_before_the_end_is_there_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server:
        _, headers, _ = server.ask("POST", "/v2/some/app/blobs/uploads/")
        assert server.ask("PATCH", headers["location"], HALF)[0] == 202
        server.process.kill()
        server.ended()
    with serving(tmp_path, {}) as server:
        status, again, _ = server.ask("GET", headers["location"])
        assert (status, again["range"]) == (204, f"0-{len(HALF) - 1}")


def test_an_upload_that_outlasts_the_drain_is_cut(tmp_path: Path) -> None:
    with serving(tmp_path, {"TENURE_SERVER_DRAIN": "500ms"}) as server, half_an_upload(server):
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
        assert "requests cut" in server.said()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server, half_an_upload(server):
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not server.accepts())
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == -signal.SIGTERM


def test_an_idle_connection_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server:
        host, _, port = server.address.rpartition(":")
        kept = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        kept.request("GET", "/v2/")
        kept.getresponse().read()
        started = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.ended() == 0
        assert time.monotonic() - started < 15
        kept.close()


def test_a_draining_server_is_unready_and_still_serves_for_the_delay(tmp_path: Path) -> None:
    with serving(tmp_path, {"TENURE_SERVER_DRAIN_DELAY": "3s"}) as server:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: answers(server, "/readyz", 503))
        assert server.report()["status"] == "draining"
        status, headers, _ = server.ask("GET", "/v2/")
        assert (status, headers["connection"]) == (200, "close")
        assert server.ask("GET", "/livez")[0] == 200
        assert server.ended() == 0


def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server:
        code, said = refused(tmp_path, f"127.0.0.1:{free_port()}", {})
        assert code == 1
        assert f"in use by another Tenure process (pid {server.process.pid})" in said
        assert said.count("\n") == 1
        server.process.kill()
        server.ended()
    with serving(tmp_path, {}):
        pass


def test_an_address_in_use_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server:
        other = tmp_path / "other"
        other.mkdir()
        code, said = refused(other, server.address, {})
        assert code == 1
        assert f"cannot listen on {server.address}" in said and said.count("\n") == 1


def test_a_store_that_cannot_be_used_is_said_in_a_sentence(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    code, said = refused(tmp_path, "127.0.0.1:0", {"TENURE_BLOBS_URL": f"file://{in_the_way}"})
    assert code == 1
    assert said == (
        f"{in_the_way} cannot be used: it is not a folder; move it away, or name another place with "
        "blobs.url (--blobs-url, TENURE_BLOBS_URL)\n"
    )


@pytest.mark.parametrize("role", ["api", "worker"])
def test_sqlite_takes_no_split_roles(tmp_path: Path, role: str) -> None:
    code, said = refused(tmp_path, "127.0.0.1:0", {}, "--role", role)
    assert code == 2
    assert said == (
        f"server.role: {role} needs a database that several processes share: postgresql://... (from flag --role)\n"
    )


async def test_each_role_does_its_part(tmp_path: Path, new_database_url: NewDatabaseUrl) -> None:
    settings = {"TENURE_DATABASE_URL": await new_database_url("postgresql"), "TENURE_LOG_FORMAT": "json"}
    with serving(tmp_path, settings, "--role", "worker") as worker, serving(tmp_path, settings, "--role", "api") as api:
        assert api.ask("GET", "/v2/")[0] == 200
        assert worker.ask("GET", "/v2/")[0] == 404
        for server in (api, worker):
            assert server.ask("GET", "/livez")[0] == 200
            assert server.report()["ready"]
            assert b"tenure_build_info" in server.ask("GET", "/metrics")[2]
        assert "docker push" in api.said() and "docker push" not in worker.said()
        for server in (api, worker):
            server.process.send_signal(signal.SIGTERM)
            assert server.ended() == 0


def test_it_says_where_it_is_and_how_to_push(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server:
        said = server.said()
        assert f"http://{server.address}" in said
        assert f"docker tag IMAGE {server.address}/IMAGE" in said
        assert f"docker push {server.address}/IMAGE" in said
        assert "no accounts" not in said


def test_readiness_names_its_components(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server:
        report = server.report()
        assert report["ready"] is True and report["status"] == "ready"
        assert set(report["components"]) == {"database", "schema", "store"}
        assert all(component["ready"] for component in report["components"].values())


def test_requests_are_logged_and_counted_without_names(tmp_path: Path) -> None:
    with serving(tmp_path, {"TENURE_LOG_FORMAT": "json"}) as server:
        _, headers, _ = server.ask("GET", "/v2/secret/place/tags/list?n=5&token=hush")
        assert headers["x-request-id"]
        server.ask("GET", "/nowhere/at/all")
        text = server.ask("GET", "/metrics")[2].decode()
        assert re.search(r'tenure_http_requests_total\{method="GET",route="tags",status="4xx"\} 1\.0', text), text
        assert "secret" not in text and "nowhere" not in text
        assert "tenure_store_operation_seconds" in text and "tenure_database_operation_seconds" in text
        lines = [json.loads(line) for line in server.said().splitlines() if line.startswith("{")]
        (line,) = [line for line in lines if line.get("request_id") == headers["x-request-id"] and "status" in line]
        assert (line["method"], line["path"], line["status"]) == ("GET", "/v2/secret/place/tags/list", 404)
        assert "hush" not in server.said()


def test_metrics_can_have_a_listener_of_their_own(tmp_path: Path) -> None:
    apart = f"127.0.0.1:{free_port()}"
    with serving(tmp_path, {"TENURE_METRICS_LISTEN": apart}) as server:
        assert server.ask("GET", "/metrics")[0] == 404
        other = Server(server.process, apart, server.log)
        assert b"tenure_build_info" in other.ask("GET", "/metrics")[2]
        assert other.ask("GET", "/livez")[0] == 200
        assert other.ask("GET", "/v2/")[0] == 404


def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    with serving(tmp_path, {"TENURE_METRICS_ENABLED": "false"}) as server:
        assert server.ask("GET", "/metrics")[0] == 404
        assert server.ask("GET", "/v2/")[0] == 200


def test_it_serves_tls(tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", chain, "-days", "2", "-subj", "/CN=t", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = {"TENURE_SERVER_TLS_CERT": str(chain), "TENURE_SERVER_TLS_KEY": str(key)}
    with serving(tmp_path, settings, tls=ssl.create_default_context(cafile=str(chain))) as server:
        assert server.ask("GET", "/v2/")[0] == 200
        assert f"https://{server.address}" in server.said()


def test_behind_another_name_it_says_that_name(tmp_path: Path) -> None:
    with serving(tmp_path, {}, "--external-url", "https://registry.example.com") as server:
        assert "serves https://registry.example.com" in server.said()
        assert "docker push registry.example.com/IMAGE" in server.said()


def test_the_health_check_of_the_image(tmp_path: Path) -> None:
    check = [sys.executable, "-m", "tenure.app.alive"]
    with serving(tmp_path, {}) as server:
        settings = clean({"TENURE_SERVER_LISTEN": server.address})
        assert subprocess.run(check, env=settings, cwd=tmp_path, check=False).returncode == 0
        server.process.kill()
        server.ended()
        assert subprocess.run(check, env=settings, cwd=tmp_path, check=False, capture_output=True).returncode == 1


def test_migrate_plans_before_it_applies(tmp_path: Path) -> None:
    base = [sys.executable, "-m", "tenure", "migrate", "--data-dir", str(tmp_path / "data")]

    def run(*more: str) -> str:
        return subprocess.run(
            [*base, *more], env=clean({}), cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    def there() -> dict[Path, tuple[int, int]]:
        found = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

    assert run("--plan").startswith(f"would make {tmp_path / 'data' / 'tenure.db'}\nwould apply 0001")
    assert list(tmp_path.iterdir()) == []
    assert run().startswith("applied 0001")
    before = there()
    assert run("--plan") == "the schema is current\n"
    assert there() == before
    assert run() == "the schema is current\n"
    (tmp_path / "data" / "tenure.db").write_bytes(b"")
    before = there()
    assert run("--plan").startswith("would apply 0001")
    assert there() == before


def test_a_plan_beside_a_running_server_reads_what_it_wrote(tmp_path: Path) -> None:
    with serving(tmp_path, {}):
        assert list((tmp_path / "data").glob("tenure.db-wal"))
        ran = subprocess.run(
            [sys.executable, "-m", "tenure", "migrate", "--plan", "--data-dir", str(tmp_path / "data")],
            env=clean({}), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the schema is current\n", "")


async def test_a_plan_on_postgres_changes_nothing(new_database_url: NewDatabaseUrl) -> None:
    url = await new_database_url("postgresql", migrated=False)
    for _ in range(2):
        ran = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "tenure", "migrate", "--plan", "--database-url", url],
            env=clean({}), cwd="/", capture_output=True, text=True, check=True, timeout=PATIENCE,
        )  # fmt: skip
        assert ran.stdout.startswith("would apply 0001")
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    await connection.close()


@pytest.mark.parametrize("command", [["serve", "--listen", "127.0.0.1:0"], ["migrate"], ["migrate", "--plan"]])
@pytest.mark.parametrize(
    ("flags", "setting"),
    [
        (["--data-dir", "{}"], "server.data_dir (--data-dir, TENURE_SERVER_DATA_DIR)"),
        (["--database-url", "sqlite:///{}/x.db"], "database.url (--database-url, TENURE_DATABASE_URL)"),
    ],
)
def test_a_place_that_cannot_be_used_names_its_setting(
    tmp_path: Path, command: list[str], flags: list[str], setting: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    ran = subprocess.run(
        [sys.executable, "-m", "tenure", *command, *(flag.format(tmp_path / "file") for flag in flags)],
        env=clean({}), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.endswith(
        f"{tmp_path / 'file'} is not a folder; move it away, or name another place with {setting}\n"
    )
    assert ran.stderr.count("\n") == 1


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            command(tmp_path / "data", address), stdout=subprocess.DEVNULL, stderr=full, env=clean({}), cwd=tmp_path
        )
    server = Server(process, address, tmp_path / "none")
    try:
        until(lambda: process.poll() is not None or answers(server, "/readyz", 200))
        for _ in range(3):
            assert server.ask("GET", "/v2/")[0] == 200
            assert server.ask("GET", "/v2/UPPER/tags/list")[0] == 400
        metrics = server.ask("GET", "/metrics")[2].decode()
        assert float(re.findall(r"^tenure_log_lines_lost (\S+)", metrics, re.MULTILINE)[0]) > 5
        process.terminate()
        assert server.ended() == 0
    finally:
        process.kill()
        process.wait()
