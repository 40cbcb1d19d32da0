"""Two replicas behind nginx as deploy/nginx.conf sets it up: streams, addresses, a rolling restart."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.docker_engine import DockerEngine
from helpers.nginx import Nginx, nginx
from helpers.postgres import PostgresServer
from helpers.s3 import create_bucket, seaweedfs
from helpers.skopeo import Layout, Skopeo
from helpers.tenure_process import free_port, process

pytestmark = pytest.mark.e2e

BIG = 200 << 20
PIECE = os.urandom(1 << 20)
#: what logs and the like may cost, far below a layer
LITTLE = 4 << 20
PATIENCE = 120.0


@dataclass(slots=True)
class Replica:
    """One replica, which can be stopped and started again at its address."""

    address: str
    settings: dict[str, str]
    folder: Path
    _running: contextlib.ExitStack | None = None

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        environment = {name: text for name, text in os.environ.items() if not name.startswith("TENURE_")}
        command = [sys.executable, "-m", "tenure", "serve", "--listen", self.address]
        self._running = contextlib.ExitStack()
        log = self.folder / "log"
        environment |= {**self.settings, "TENURE_SERVER_DATA_DIR": str(self.folder)}
        self._running.enter_context(process(command, self.address, log, environment=environment, cwd=self.folder))

    def stop(self) -> None:
        """SIGTERM, and its end."""
        running, self._running = self._running, None
        if running:
            running.close()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Two, on one Postgres and one store; the first answers with paths, the second with full addresses."""
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "store").mkdir()
    with contextlib.ExitStack() as stack:
        postgres = PostgresServer(durable=True)
        stack.callback(postgres.stop)
        store = stack.enter_context(seaweedfs(folder / "store"))
        asyncio.run(create_bucket(store, "images"))
        settings = {
            "TENURE_DATABASE_URL": postgres.url(),
            "TENURE_BLOBS_URL": "s3://images/registry",
            "TENURE_S3_ENDPOINT": store.endpoint,
            "TENURE_S3_ACCESS_KEY": store.access_key,
            "TENURE_S3_SECRET_KEY": store.secret_key,
            "TENURE_SERVER_TRUSTED_PROXIES": "127.0.0.1/32",
        }
        both = [
            Replica(f"127.0.0.1:{free_port()}", settings | {"TENURE_PULL_ABSOLUTE_URLS": full}, folder / full)
            for full in ("false", "true")
        ]
        for replica in both:
            replica.start()
            stack.callback(replica.stop)
        yield both


@pytest.fixture(scope="module")
def proxy(replicas: list[Replica]) -> Iterator[Nginx]:
    with nginx([replica.address for replica in replicas]) as running:
        yield running


def ask(
    address: str,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, Mapping[str, str], bytes]:
    """One request on a connection of its own, from 127.0.0.2; an iterable body goes in chunks, as docker's do."""
    source = ("127.0.0.2", 0)
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection(address, timeout=PATIENCE, source_address=source, context=tls)
    else:
        connection = http.client.HTTPConnection(address, timeout=PATIENCE, source_address=source)
    with contextlib.closing(connection):
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()


def upload(address: str, name: str, pieces: Callable[[], Iterator[bytes]]) -> str:
    """As docker does it: POST, one PATCH in chunks, PUT; the digest."""
    hasher = hashlib.sha256()
    for piece in pieces():
        hasher.update(piece)
    digest = f"sha256:{hasher.hexdigest()}"
    status, headers, said = ask(address, "POST", f"/v2/{name}/blobs/uploads/")
    assert status == 202, said
    # http.client adds chunked encoding itself when a body has no length.
    status, headers, said = ask(address, "PATCH", path_of(address, headers["location"]), pieces())
    assert status == 202, said
    status, headers, said = ask(address, "PUT", f"{path_of(address, headers['location'])}?digest={digest}", b"")
    assert status == 201, said
    return digest


def path_of(address: str, location: str) -> str:
    """The path of a Location, which must lead to the proxy."""
    if location.startswith("/"):
        return location
    scheme, _, rest = location.partition("://")
    host, slash, path = rest.partition("/")
    assert (scheme, host) == ("http", address)
    return slash + path


def pull_late(address: str, name: str, digest: str) -> str:
    """Downloads a blob, but only begins to read when a proxy that stores answers had time to; the digest received."""
    hasher = hashlib.sha256()
    with urllib.request.urlopen(f"http://{address}/v2/{name}/blobs/{digest}", timeout=PATIENCE) as answer:
        time.sleep(3)
        while piece := answer.read(1 << 20):
            hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}"


def test_docker_pushes_and_pulls_through_it(
    proxy: Nginx, docker: DockerEngine, build: Callable[[str, dict[str, bytes]], None], tmp_path: Path
) -> None:
    content = os.urandom(24 << 20)
    name = f"{proxy.address}/behind/app:1"
    build(name, {"large.bin": content})
    docker("push", name)
    docker.forget(name)
    docker("pull", name)
    assert docker.content(name, "/large.bin", tmp_path / "out") == content
    docker.forget(name)


def test_a_layer_of_200_mib_passes_without_touching_the_proxys_disk(
    proxy: Nginx, skopeo: Skopeo, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    made = layout.image("amd64", {"big.bin": os.urandom(BIG)})
    layer = max((tmp_path / "layout/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    assert layer.stat().st_size > BIG
    before = proxy.written()
    skopeo.copy(layout.finish("big", made), f"docker://{proxy.address}/behind/big:1")
    assert skopeo.digest(f"{proxy.address}/behind/big:1") == made["digest"]
    assert proxy.written() - before < LITTLE
    # Its client is slower than the store: what it has not taken yet must wait there, not here.
    assert pull_late(proxy.address, "behind/big", f"sha256:{layer.name}") == f"sha256:{layer.name}"
    assert proxy.written() - before < LITTLE


def test_in_chunks_too_and_buffering_would_have_been_seen(proxy: Nginx, replicas: list[Replica]) -> None:
    def pieces() -> Iterator[bytes]:
        return (PIECE for _ in range(64))

    before = proxy.written()
    digest = upload(proxy.address, "behind/chunks", pieces)
    assert pull_late(proxy.address, "behind/chunks", digest) == digest
    assert proxy.written() - before < LITTLE

    stores = {
        "proxy_request_buffering off;": "proxy_request_buffering on;",
        "proxy_buffering off;": "proxy_buffering on;",
    }
    with nginx([replica.address for replica in replicas], stores) as storing:
        before = storing.written()
        upload(storing.address, "behind/stored", pieces)
        after_push = storing.written()
        assert after_push - before > 60 << 20
        assert pull_late(storing.address, "behind/chunks", digest) == digest
        assert storing.written() - after_push > 30 << 20


def test_locations_keep_the_client_on_the_proxy(proxy: Nginx) -> None:
    forms = set()
    for _ in range(8):
        status, headers, _ = ask(proxy.address, "POST", "/v2/behind/location/blobs/uploads/")
        assert status == 202
        path_of(proxy.address, headers["location"])
        forms.add(headers["location"].partition("/v2/")[0])
    assert forms == {"", f"http://{proxy.address}"}, "both replicas answered, each in its way"


def test_the_audit_row_holds_the_clients_address_and_nobody_can_invent_one(
    proxy: Nginx, replicas: list[Replica]
) -> None:
    """Forwarded beats X-Forwarded-For, so nginx must not let a client's own through."""
    invented = {
        "Forwarded": "for=203.0.113.7;host=evil.example;proto=https",
        "X-Forwarded-For": "203.0.113.8",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
    }
    for _ in range(2):
        status, headers, said = ask(proxy.address, "POST", "/v2/behind/audit/blobs/uploads/", b"", invented)
        assert status == 202 and "evil" not in headers["location"]
    content = [os.urandom(100)]
    digest = upload(proxy.address, "behind/audit", lambda: iter(content))
    # A delete is what is kept in the audit list.
    status, _, said = ask(proxy.address, "DELETE", f"/v2/behind/audit/blobs/{digest}", None, invented)
    assert status == 202, said

    with urllib.request.urlopen(f"http://{replicas[0].address}/api/v1/audit", timeout=PATIENCE) as answer:
        events = json.load(answer)["items"]
    found = [(event["action"], event["address"]) for event in events if event["target"] == digest]
    assert found == [("blob.delete", "127.0.0.2")]


def test_a_rolling_restart_fails_nobody(proxy: Nginx, replicas: list[Replica]) -> None:
    """Each replica in turn gets SIGTERM while uploads and questions run through the proxy."""
    stop, done, failures = threading.Event(), [0], []

    def slow() -> Iterator[bytes]:
        for _ in range(40):
            yield PIECE[:65536]
            time.sleep(0.05)

    def work(number: int) -> None:
        while not stop.is_set():
            content = [os.urandom(100)]
            try:
                digest = upload(proxy.address, "behind/rolling", slow if number == 0 else content.__iter__)
                status, _, _ = ask(proxy.address, "GET", f"/v2/behind/rolling/blobs/{digest}")
                assert status == 200
                done[0] += 1
            except (AssertionError, OSError, http.client.HTTPException) as error:
                failures.append(repr(error))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    try:
        for replica in replicas:
            time.sleep(1)
            replica.stop()
            replica.start()
        time.sleep(1)
    finally:
        stop.set()
        for worker in workers:
            worker.join(PATIENCE)
    assert failures == []
    assert done[0] > 20


def test_with_the_tls_lines_of_the_page(replicas: list[Replica], tmp_path: Path) -> None:
    """docs/operate.md says which lines take the place of `listen`; full addresses then begin with https."""
    page = (Path(__file__).resolve().parents[2] / "docs/operate.md").read_text("utf-8")
    lines = page.partition("```nginx\n")[2].partition("```")[0]
    assert "listen 8443 ssl;" in lines
    made = ["-subj", "/CN=registry.test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    key, certificate = tmp_path / "registry.key", tmp_path / "registry.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*command, *made], check=True, capture_output=True)
    for name, path in (("/etc/nginx/tls/registry.pem", certificate), ("/etc/nginx/tls/registry.key", key)):
        assert lines.count(name) == 1
        lines = lines.replace(name, str(path))
    context = ssl.create_default_context(cafile=str(certificate))
    with nginx([replica.address for replica in replicas], {"listen 8080;\n": lines.strip() + "\n"}) as secured:
        answers = [ask(secured.address, "POST", "/v2/tls/app/blobs/uploads/", b"", tls=context) for _ in range(8)]
    assert {status for status, _, _ in answers} == {202}
    forms = {headers["location"].partition("/v2/")[0] for _, headers, _ in answers}
    assert forms == {"", f"https://{secured.address}"}
