"""Push and pull of one large blob: CPU seconds per GB, MB/s and peak memory, Tenure beside distribution v3.

`python bench/transfer.py`. Every push is of new random bytes (a registry that knows a blob does no work), every
registry flushes what it acknowledges, and the pull reads what was just pushed, from the page cache. Rounds are
interleaved; CPU decides, MB/s is for the impression: the client hashes and reads on the same cores.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import measure  # noqa: E402
import peers  # noqa: E402
import yardsticks  # noqa: E402
from content import pull_blob, push_blob  # noqa: E402

RESULTS = HERE / "results"
REPOSITORY = "bench/large"
ROUNDS = 5
SIZE = 100 << 20
OPERATIONS = ("push", "pull")


@dataclass(frozen=True, slots=True)
class Round:
    """One server, one transfer. CPU in seconds per 10^9 bytes, memory in bytes; `beside` as CPU s/GB."""

    cpu_per_gb: float
    mb_per_second: float
    peak: int
    beside: dict[str, float] = field(default_factory=dict)


Rounds = dict[tuple[str, str], list[Round]]


def main() -> int:
    """Always 0 once measured: this form sets no goal."""
    parser = argparse.ArgumentParser(description="push and pull of one large blob beside distribution v3")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--size", type=int, default=SIZE, help="bytes")
    parser.add_argument("--peer", choices=peers.NAMES, action="append", help="only these and their references")
    asked = parser.parse_args()
    names = peers.chosen(asked.peer)
    facts = measure.provenance()
    found: Rounds = {(name, operation): [] for operation in OPERATIONS for name in names}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(peers.serve(name)) for name in names]
        for number in range(asked.rounds):
            for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
                print(f"\rround {number + 1} of {asked.rounds}: {server.name:25}", end="", file=sys.stderr)
                push, pull = _transfer(server, os.urandom(asked.size))
                found[server.name, "push"].append(push)
                found[server.name, "pull"].append(pull)
    print("\r" + " " * 78 + "\r", end="", file=sys.stderr)
    _print(facts, names, found, asked.size)
    _keep(facts, asked, found)
    return 0


def _transfer(server: peers.Peer, data: bytes) -> tuple[Round, Round]:
    measure.check_listener(server.pid, server.address)
    digest = ""

    def push() -> None:
        nonlocal digest
        digest = push_blob(server.address, REPOSITORY, data)

    pushed = _watch(server, len(data), push)
    pulled = _watch(server, len(data), lambda: pull_blob(server.address, REPOSITORY, digest, len(data)))
    return pushed, pulled


def _watch(server: peers.Peer, size: int, transfer: Callable[[], object]) -> Round:
    watched = {"": server.pid, **server.beside}
    measure.forget_peak(server.pid)
    before = {name: measure.cpu_seconds(pid) for name, pid in watched.items()}
    start = time.perf_counter()
    transfer()
    seconds = time.perf_counter() - start
    spent = {name: (measure.cpu_seconds(pid) - before[name]) / size * 1e9 for name, pid in watched.items()}
    own = spent.pop("")
    return Round(own, size / seconds / 1e6, measure.peak_memory(server.pid), spent)


def _print(facts: dict[str, str], names: list[str], found: Rounds, size: int) -> None:
    print("transfer: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"one blob of {size / (1 << 20):.0f} MiB, one client on the same cores, rounds interleaved, medians\n")
    print(f"{'':5} {'registry':22} {'CPU s/GB':>9} {'max/min':>8} {'x ref':>6} {'MB/s':>7} {'peak RSS MiB':>13}")
    for operation in OPERATIONS:
        for name in names:
            reference = measure.median([one.cpu_per_gb for one in found[peers.reference_of(name), operation]])
            all_ = found[name, operation]
            cpu = [one.cpu_per_gb for one in all_]
            print(
                f"{operation:5} {name:22} {measure.median(cpu):9.2f} {measure.spread(cpu):8.2f}"
                f" {measure.median(cpu) / reference:6.2f} {measure.median([one.mb_per_second for one in all_]):7.0f}"
                f" {max(one.peak for one in all_) / (1 << 20):13.0f}"
            )
            for beside in all_[0].beside:
                cost = measure.median([one.beside[beside] for one in all_])
                print(f"{'':5}   not counted above: {beside}'s own CPU, {cost:.2f} s/GB")
    print(f"\nyardstick: sha256 of 64 MiB, CPU s/GB: {yardsticks.sha256_64_mib():.2f}")


def _keep(facts: dict[str, str], asked: argparse.Namespace, found: Rounds) -> None:
    RESULTS.mkdir(exist_ok=True)
    kept = {
        **facts,
        "size": asked.size,
        "reference": f"{peers.DISTRIBUTION.package}@{peers.DISTRIBUTION.version}",
        "rounds": [
            {"registry": name, "operation": operation, "rounds": [asdict(one) for one in all_]}
            for (name, operation), all_ in found.items()
        ],
    }
    path = RESULTS / f"transfer-{facts['date'].replace(':', '')}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"results: {os.path.relpath(path)}")


if __name__ == "__main__":
    sys.exit(main())
