"""deploy/nginx.conf, run: nothing in it is changed but addresses and folders, and what a test asks for by name."""

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.docker_engine import Failed, Missing
from helpers.tenure_process import free_port

CONF = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"
START_LIMIT = 30.0
STOP_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class Nginx:
    """A proxy that listens on `address`, HOST:PORT."""

    address: str
    pid: int

    def written(self) -> int:
        """Bytes that its processes have sent to a disk so far, as the kernel counts them."""
        pids = [str(self.pid), *Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        assert len(pids) > 1
        counts = (re.search(r"^write_bytes: (\d+)$", _io(pid), re.MULTILINE) for pid in pids)
        return sum(int(found[1]) for found in counts if found)


def _io(pid: str) -> str:
    return Path(f"/proc/{pid}/io").read_text()


@contextlib.contextmanager
def nginx(replicas: Sequence[str], changes: Mapping[str, str] | None = None) -> Iterator[Nginx]:
    """Runs it in front of `replicas`, HOST:PORT each. `changes`: further lines, each there once, and what replaces it.

    Raises Missing; Failed with what it said.
    """
    program = shutil.which("nginx")
    if program is None:
        raise Missing("nginx is not installed; apt-get install --no-install-recommends nginx-light")
    # Its workers run as a user of their own, who must be able to reach the folder: not one of pytest's.
    with tempfile.TemporaryDirectory(prefix="tenure-nginx-", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        address = f"127.0.0.1:{free_port()}"
        conf = folder / "nginx.conf"
        conf.write_text(_placed(CONF.read_text("utf-8"), address, replicas, changes or {}, folder))
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "-p", str(folder), "-c", str(conf), "-g", "daemon off;"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder,
            )  # fmt: skip
        try:
            _wait(process, address, log)
            yield Nginx(address, process.pid)
        finally:
            process.terminate()
            process.wait(STOP_LIMIT)


def _placed(text: str, address: str, replicas: Sequence[str], changes: Mapping[str, str], folder: Path) -> str:
    # Folders first: what a change brings along has places of its own.
    assert text.count(" /tmp/") == 6
    text = text.replace(" /tmp/", f" {folder}/")
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    for number, replica in enumerate(replicas, 1):
        assert text.count(f"tenure-{number}:5000") == 1
        text = text.replace(f"tenure-{number}:5000", replica)
    text, ports = re.subn(r"listen 8\d+", f"listen {address}", text)
    assert ports == 1
    return text


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until something answers; with TLS on, that a plain request is refused is an answer too."""
    ends = time.monotonic() + START_LIMIT
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/livez", timeout=5):
                return
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.1)
    raise Failed(f"nginx did not start\n{log.read_text(errors='replace')}")
