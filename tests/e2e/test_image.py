"""The Dockerfile, built by a real engine, and the container run: hardened as deploy/ runs it, on the host's network.

No image can be pulled where the tests run, so BASE is a Debian made here, with Debian's python3. What this cannot
show is the real default of BASE, python:3.13-slim.
"""

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from helpers.docker_engine import DockerEngine, Missing
from helpers.tenure_process import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenure"
RELEASE, PYTHON = "bookworm", "3.11"
#: where the base's packages come from, when it is not debootstrap's own place
DEBIAN = os.environ.get("TENURE_TEST_DEBIAN", "")
BASE, IMAGE = "tenure-test/base", "tenure-test/tenure"
PATIENCE = 120.0
#: as deploy/compose.yaml and deploy/kubernetes.yaml run it
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")


def long(command: list[str], **more: object) -> str:
    """A command that may take minutes; its output."""
    ran = subprocess.run(  # type: ignore[call-overload]
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200, check=False, **more
    )
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout[-4000:]}"
    return str(ran.stdout)


def debian(scratch: Path) -> Path:
    """A small Debian with python3 as a tar archive, made once and kept."""
    kept = CACHE / f"debian-{RELEASE}-python.tar"
    if not kept.exists():
        if shutil.which("debootstrap") is None:
            raise Missing("debootstrap is not installed; apt-get install --no-install-recommends debootstrap")
        folder = scratch / "debian"
        packages = "--include=python3,python3-venv,ca-certificates"
        long(["debootstrap", "--variant=minbase", packages, RELEASE, str(folder), *([DEBIAN] if DEBIAN else [])])
        # What python images have, and Debian has not.
        (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tarfile.open(kept.with_suffix(".part"), "w") as archive:
            archive.add(folder, ".", filter=lambda info: None if info.name.startswith("./var/cache/apt/") else info)
        kept.with_suffix(".part").rename(kept)
    return kept


def wheels() -> Path:
    """What requirements.lock names, for the base's Python: the build inside the engine then needs no network."""
    lock = ROOT / "requirements.lock"
    kept = CACHE / f"wheels-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not kept.exists():
        part = kept.with_suffix(".part")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        only = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON]
        long([*pip, *only, "--dest", str(part), "-r", str(lock)])
        part.rename(kept)
    return kept


@pytest.fixture(scope="module")
def image(docker: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built of the Dockerfile as it stands."""
    scratch = tmp_path_factory.mktemp("image")
    environment = docker.environment
    long(["docker", "import", str(debian(scratch)), f"{BASE}-debian"], env=environment)
    # --network none: nothing but the wheels at hand.
    recipe = f"FROM {BASE}-debian\nENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\nCOPY . /wheels\n"
    recipe += "ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels\n"
    (scratch / "Dockerfile.base").write_text(recipe)
    build = ["docker", "build", "--network", "none"]
    long([*build, "-t", BASE, "-f", str(scratch / "Dockerfile.base"), str(wheels())], env=environment)
    long([*build, "-t", IMAGE, "--build-arg", f"BASE={BASE}", str(ROOT)], env=environment)
    yield IMAGE
    # What the first container on the host's network leaves outlives the engine, whose folder then cannot be removed.
    folder = Path(environment["DOCKER_HOST"].removeprefix("unix://")).parent
    subprocess.run(["umount", str(folder / "exec/netns/default")], check=True)


@dataclass(frozen=True, slots=True)
class Container:
    docker: DockerEngine
    name: str
    address: str

    def inspect(self, form: str) -> str:
        return self.docker("inspect", "--format", form, self.name).strip()

    def until(self, form: str, wanted: str) -> None:
        ends = time.monotonic() + PATIENCE
        while (found := self.inspect(form)) != wanted:
            assert time.monotonic() < ends, f"{form}: {found}\n{self.docker('logs', self.name)}"
            time.sleep(0.3)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=5):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def container(docker: DockerEngine, image: str, volume: str, *more: str) -> Iterator[Container]:
    """A container that is ready, removed at the end; the volume stays."""
    address = f"127.0.0.1:{free_port()}"
    name = f"tenure-{address.rpartition(':')[2]}"
    # The engine of the tests has no network of its own, so the address is this machine's.
    flags = ["--network", "host", "-e", f"TENURE_SERVER_LISTEN={address}", "-v", f"{volume}:/data", *HARDENED, *more]
    docker("run", "--detach", "--name", name, *flags, image)
    running = Container(docker, name, address)
    try:
        ends = time.monotonic() + PATIENCE
        while not running.ready():
            assert time.monotonic() < ends, docker("logs", name)
            time.sleep(0.3)
        yield running
    finally:
        docker("rm", "--force", name)


def test_it_runs_unprivileged_on_a_read_only_root_and_becomes_healthy(docker: DockerEngine, image: str) -> None:
    with container(docker, image, "healthy", "--health-interval", "1s", "--health-start-period", "0s") as running:
        running.until("{{.State.Health.Status}}", "healthy")
        status = Path(f"/proc/{running.inspect('{{.State.Pid}}')}/status").read_text()
        assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
        assert re.search(r"^Gid:\s+10001\s", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert "Read-only file system" in docker("exec", running.name, "touch", "/opt/tenure/x", ok=False)
        # The health check fails where nothing answers.
        asked = ["exec", "-e", "TENURE_SERVER_LISTEN=127.0.0.1:9", running.name, "python", "-m", "tenure.app.alive"]
        docker(*asked, ok=False)


def test_docker_pushes_to_it_and_a_new_container_on_the_volume_has_everything(
    docker: DockerEngine, image: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY content.bin /content.bin\nCMD ["/content.bin"]\n')
    content = os.urandom(9 << 20)
    (tmp_path / "content.bin").write_bytes(content)
    docker("build", "-q", "-t", "kept", str(tmp_path))
    with container(docker, image, "kept") as running:
        docker("tag", "kept", f"{running.address}/image/kept:1")
        docker("push", f"{running.address}/image/kept:1")
        # Not forget(), which also removes the stages of the build, hundreds of megabytes each.
        docker("rmi", f"{running.address}/image/kept:1", "kept")
    with container(docker, image, "kept") as running:
        docker("pull", f"{running.address}/image/kept:1")
        assert docker.content(f"{running.address}/image/kept:1", "/content.bin", tmp_path / "out") == content
        docker("rmi", f"{running.address}/image/kept:1")


def test_docker_stop_lets_a_running_upload_finish(docker: DockerEngine, image: str) -> None:
    half = b"x" * 300_000
    with container(docker, image, "stopped") as running:
        host = http.client.HTTPConnection(running.address, timeout=PATIENCE)
        host.request("POST", "/v2/image/stopped/blobs/uploads/")
        answer = host.getresponse()
        answer.read()
        location = answer.getheader("Location")
        assert answer.status == 202 and location
        host.putrequest("PATCH", location)
        host.putheader("Content-Length", str(2 * len(half)))
        host.endheaders(half)
        time.sleep(0.5)
        stopping = threading.Thread(target=docker, args=("stop", "--time", "100", running.name))
        stopping.start()
        time.sleep(2)
        assert not running.ready()
        assert running.inspect("{{.State.Running}}") == "true"
        host.send(half)
        answer = host.getresponse()
        assert (answer.status, answer.getheader("Range")) == (202, f"0-{2 * len(half) - 1}")
        answer.read()
        host.close()
        stopping.join(PATIENCE)
        assert running.inspect("{{.State.Running}} {{.State.ExitCode}} {{.State.OOMKilled}}") == "false 0 false"


def test_it_holds_what_it_needs_and_no_tools_to_change_it(docker: DockerEngine, image: str) -> None:
    with container(docker, image, "looked-at") as running:
        said = docker("exec", running.name, "tenure", "config", "check")
        assert re.search(r'^data_dir = "/data" +# environment TENURE_SERVER_DATA_DIR$', said, re.MULTILINE)
        module = ["exec", running.name, "python", "-c"]
        docker(*module, "import tenure.app.run, tenure.storage.blobs.s3_client, re2, asyncpg, cryptography")
        docker(*module, "import pip", ok=False)
        # Each of S3's ways to credentials finds its service described.
        services = "import botocore.session as b; print(*sorted(b.Session().get_available_services()))"
        assert {"s3", "sso", "sso-oidc", "sts"} == set(docker(*module, services).split())
    listen = docker("inspect", "--format", "{{.Config.Env}}", image)
    assert "TENURE_SERVER_LISTEN=0.0.0.0:5000" in listen


def test_it_is_run_here_as_the_compose_file_runs_it() -> None:
    service = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))["services"]["tenure-1"]
    flags = ["--read-only"] if service["read_only"] else []
    for flag, key in (("--tmpfs", "tmpfs"), ("--cap-drop", "cap_drop"), ("--security-opt", "security_opt")):
        for value in service[key]:
            flags += [flag, value]
    assert tuple(flags) == HARDENED
