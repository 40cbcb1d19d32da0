"""A docker engine of its own: no bridge, no firewall rules, everything in one folder, gone afterwards."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_LIMIT = 60
STOP_LIMIT = 30


class Missing(Exception):
    """A client that the tests drive is not installed; the message says how to get it."""


class Failed(AssertionError):
    """A client ended with an error; the message holds the command and what it said."""


@dataclass(frozen=True, slots=True)
class DockerEngine:
    """The docker command, talking to this engine. `environment` is all that it needs."""

    environment: dict[str, str]

    def __call__(self, *arguments: str, ok: bool = True) -> str:
        """Standard output and error together. Raises Failed when the command ended otherwise than `ok` says."""
        return run(["docker", *arguments], self.environment, ok=ok)

    def forget(self, *images: str) -> None:
        """Remove images and everything cached of them, so that the next pull brings all of it."""
        self("rmi", "-f", *images)
        self("image", "prune", "-f")

    def content(self, image: str, path: str, into: Path) -> bytes:
        """A file out of an image."""
        container = self("create", image).split()[-1]
        try:
            self("cp", f"{container}:{path}", str(into))
        finally:
            self("rm", container)
        return into.read_bytes()


def run(command: list[str], environment: dict[str, str], *, ok: bool = True, cwd: Path | None = None) -> str:
    """A client's output, both streams. Raises Failed when it ended otherwise than `ok` says, or took 3 minutes."""
    ran = subprocess.run(
        command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180,
        check=False,
    )  # fmt: skip
    if (ran.returncode == 0) != ok:
        raise Failed(f"{' '.join(command)}\nended with {ran.returncode}\n{ran.stdout}")
    return ran.stdout


def need(*programs: str) -> None:
    """Raises Missing for the first that is not there."""
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed; apt-get install docker.io containerd podman buildah skopeo")


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[DockerEngine]:
    """Runs dockerd in `folder`. Raises Missing; Failed with the end of its log when it does not start."""
    need("docker", "dockerd", "containerd")
    if os.geteuid() != 0:
        raise Missing("dockerd of the tests' own needs root; run make e2e as root")
    socket = f"unix://{folder}/docker.sock"
    command = [
        "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", "vfs",
        "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "-H", socket,
        "--pidfile", str(folder / "docker.pid"),
    ]  # fmt: skip
    environment = {**os.environ, "DOCKER_HOST": socket, "DOCKER_CONFIG": str(folder / "config"), "DOCKER_BUILDKIT": "0"}
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(daemon, environment, log)
        yield DockerEngine(environment)
    finally:
        daemon.terminate()
        try:
            daemon.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _wait(daemon: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> None:
    ends = time.monotonic() + START_LIMIT
    while time.monotonic() < ends and daemon.poll() is None:
        asked = subprocess.run(["docker", "version"], env=environment, capture_output=True, check=False)
        if asked.returncode == 0:
            return
        time.sleep(0.2)
    raise Failed("dockerd did not start\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]))
