"""What a server costs: CPU and memory of its process tree, read from /proc."""

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


class NotMeasurable(Exception):
    """The process that would be measured is gone, or is not the one that answers."""


def process_tree(pid: int) -> list[int]:
    """`pid` and all its descendants. Raises NotMeasurable when it is gone."""
    if not Path(f"/proc/{pid}").exists():
        raise NotMeasurable(f"process {pid} is gone")
    tree = [pid]
    for each in tree:
        # A descendant may end between two reads (Postgres's backends do); its parent then has its time.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{each}/task").glob("*/children"):
                tree.extend(int(child) for child in task.read_text().split())
    return tree


def cpu_seconds(pid: int) -> float:
    """CPU of the tree so far, user and system, in seconds; steps of one tick (10 ms). Ended children count too."""
    ticks = 0
    for each in process_tree(pid):
        # The name in parentheses may hold blanks; the fields after it are fixed: utime stime cutime cstime.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def forget_peak(pid: int) -> None:
    """Lets the peak of resident memory begin anew from what is resident now."""
    for each in process_tree(pid):
        Path(f"/proc/{each}/clear_refs").write_text("5")


def peak_memory(pid: int) -> int:
    """The largest resident size since `forget_peak`, in bytes, summed over the tree."""
    total = 0
    for each in process_tree(pid):
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total


def check_listener(pid: int, address: str) -> None:
    """Proves that the tree of `pid` owns the socket listening on `address`; raises NotMeasurable when not.

    A server left over from another run would otherwise be measured under this one's name.
    """
    port = int(address.rpartition(":")[2])
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    owned = {
        os.readlink(descriptor)
        for each in process_tree(pid)
        for descriptor in Path(f"/proc/{each}/fd").iterdir()
        if descriptor.is_symlink()
    }
    if not sockets or not sockets <= owned:
        raise NotMeasurable(f"the listener on {address} is not process {pid}")


def median(values: Sequence[float]) -> float:
    """The median of the rounds."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Largest over smallest: how much the rounds differ."""
    return max(values) / min(values) if min(values) > 0 else float("inf")


def provenance() -> dict[str, str]:
    """What a figure must carry to be worth anything later: when, which revision, on what."""
    root = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    dirty = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revision": git("rev-parse", "--short=12", "HEAD") + dirty,
        "python": sys.version.split()[0],
        "cores": str(os.cpu_count()),
        "processor": model[0].partition(":")[2].strip() if model else "unknown",
        "load": " ".join(f"{one:.2f}" for one in os.getloadavg()),
    }
