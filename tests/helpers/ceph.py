"""A Ceph object gateway of its own: one monitor, one OSD in memory, one radosgw, on loopback and without accounts.

The programs are Debian's ceph-mon, ceph-osd, ceph-common and radosgw. What is stored is gone with the processes.
"""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from helpers.s3 import S3Server
from helpers.tenure_process import free_port

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
#: seconds for one command or one daemon to answer
_PATIENCE = 60.0
_ACCESS_KEY, _SECRET_KEY = "tenure-ceph-key", "tenure-ceph-secret"
# One copy, no authentication between the daemons, and plain connections, which radosgw asks for by name.
_CONFIG = """\
[global]
fsid = {fsid}
mon host = {monitor}
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
public addr = 127.0.0.1
cluster addr = 127.0.0.1
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = {memory}
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
run dir = {folder}/run
crash dir = {folder}/run
admin socket = {folder}/run/$name.asok
pid file = {folder}/run/$name.pid
log file = {folder}/$name.log
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


def missing() -> list[str]:
    """The programs that this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name)]


@contextmanager
def ceph(folder: Path, memory: int = 4 << 30) -> Iterator[S3Server]:
    """A gateway that answers, with `memory` bytes for what is stored; no bucket exists yet.

    Raises TimeoutError and CalledProcessError; the daemons' logs are in `folder`.
    """
    monitor = f"[v2:127.0.0.1:{free_port()}/0,v1:127.0.0.1:{free_port()}/0]"
    fsid, osd, port = str(uuid4()), str(uuid4()), free_port()
    for name in ("mon", "osd", "rgw", "run"):
        (folder / name).mkdir(parents=True)
    config = folder / "ceph.conf"
    config.write_text(_CONFIG.format(fsid=fsid, monitor=monitor, folder=folder, port=port, memory=memory))
    environment = {**os.environ, "CEPH_CONF": str(config)}

    def run(*command: str) -> None:
        subprocess.run(command, check=True, env=environment, timeout=_PATIENCE, capture_output=True)

    with ExitStack() as stack:
        map_ = str(folder / "monmap")
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor.replace("/0", ""), map_)
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", map_)
        stack.enter_context(_daemon(environment, "ceph-mon", "-f", "-i", "a"))
        run("ceph", "osd", "new", osd)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        stack.enter_context(_daemon(environment, "ceph-osd", "-f", "-i", "0"))
        user = ("--uid", "tenure", "--display-name", "tenure", "--access-key", _ACCESS_KEY, "--secret", _SECRET_KEY)
        run("radosgw-admin", "-n", "client.rgw", "user", "create", *user)
        gateway = stack.enter_context(_daemon(environment, "radosgw", "-f", "-n", "client.rgw"))
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(endpoint, gateway)
        yield S3Server(endpoint, _ACCESS_KEY, _SECRET_KEY, pid=gateway.pid)


@contextmanager
def _daemon(environment: dict[str, str], *command: str) -> Iterator["subprocess.Popen[bytes]"]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        yield process
    finally:
        # Nothing here is worth an orderly end.
        process.kill()
        process.wait()


def _wait_for(endpoint: str, gateway: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and gateway.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(f"radosgw does not answer on {endpoint}; its log is beside ceph.conf")
