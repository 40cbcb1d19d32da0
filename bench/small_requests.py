"""CPU per manifest GET by tag and per blob HEAD: Tenure on both profiles beside distribution v3, in one run.

`python bench/small_requests.py`. Each profile is compared with distribution on the same kind of store. Rounds are
interleaved, medians are compared, the ratio of CPU decides; requests per second and latencies are printed for what
they are worth on a machine that also runs the load. The exit code is 1 when Tenure needs more than GOAL times the
reference's CPU on a request that is judged.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import measure  # noqa: E402
import peers  # noqa: E402
import yardsticks  # noqa: E402
from content import Image, push_image  # noqa: E402

RESULTS = HERE / "results"
GOAL = 0.4
#: Shown and not judged: Tenure asks the primary database about each blob, distribution its own memory, which what
#: happens on another replica does not reach.
UNJUDGED = (("tenure postgres-s3", "blob HEAD"),)
ROUNDS = 5
CONNECTIONS = 8
WARM_UP = 2_000
#: Of each request, server and round: at 30 microseconds a request still 60 ticks of the CPU clock.
REQUESTS = 20_000
OPERATIONS = ("manifest GET by tag", "blob HEAD")


@dataclass(frozen=True, slots=True)
class Round:
    """One server, one operation, one round. `beside` is the CPU of the servers it leans on, per request."""

    cpu_us: float
    per_second: float
    p50_us: float
    p99_us: float
    beside: dict[str, float] = field(default_factory=dict)


Rounds = dict[tuple[str, str], list[Round]]


def main() -> int:
    """0: within the goal; 1: above it."""
    parser = argparse.ArgumentParser(description="CPU per small request beside distribution v3")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each kind, per server and round")
    parser.add_argument("--peer", choices=peers.NAMES, action="append", help="only these and their references")
    asked = parser.parse_args()
    names = peers.chosen(asked.peer)
    # Asked to stop, end the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = measure.provenance()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(peers.serve(name)) for name in names]
        images = {server.name: push_image(server.address) for server in servers}
        sticks = _yardsticks(servers)
        rounds = _measure(servers, images, asked.rounds, asked.requests)
        sticks_after = _yardsticks(servers)
    medians = {key: measure.median([one.cpu_us for one in all_]) for key, all_ in rounds.items()}
    _print(facts, names, rounds, medians, sticks, sticks_after)
    _keep(facts, asked, rounds, sticks, sticks_after)
    return _verdict(names, medians)


def _yardsticks(servers: list[peers.Peer]) -> dict[str, float]:
    sticks = {
        "SQLite point select, CPU us": yardsticks.sqlite_point_select(),
        "sha256 of 64 MiB, CPU s/GB": yardsticks.sha256_64_mib(),
    }
    for url in [server.database_url for server in servers if server.database_url]:
        sticks["Postgres SELECT 1, client CPU us"] = asyncio.run(yardsticks.postgres_select_1(url))
    return sticks


def _measure(servers: list[peers.Peer], images: dict[str, Image], rounds: int, requests: int) -> Rounds:
    found: Rounds = {(server.name, operation): [] for operation in OPERATIONS for server in servers}
    for number in range(rounds):
        # Another order each round, so that no server always follows the same neighbour.
        turn = servers[number % len(servers) :] + servers[: number % len(servers)]
        for operation in OPERATIONS:
            for server in turn:
                print(f"\rround {number + 1} of {rounds}: {operation}, {server.name:25}", end="", file=sys.stderr)
                found[server.name, operation].append(_round(server, images[server.name], operation, requests))
    print("\r" + " " * 78 + "\r", end="", file=sys.stderr)
    return found


def _round(server: peers.Peer, image: Image, operation: str, requests: int) -> Round:
    method, path = ("HEAD", image.blob_path) if operation == "blob HEAD" else ("GET", image.manifest_path)
    measure.check_listener(server.pid, server.address)
    _load(server.address, method, path, WARM_UP)
    watched = {"": server.pid, **server.beside}
    before = {name: measure.cpu_seconds(pid) for name, pid in watched.items()}
    told = _load(server.address, method, path, requests)
    spent = {name: (measure.cpu_seconds(pid) - before[name]) / requests * 1e6 for name, pid in watched.items()}
    if spent[""] <= 0:
        raise measure.NotMeasurable(f"{server.name} answered {requests} requests without any CPU")
    own = spent.pop("")
    return Round(own, told["requests"] / told["seconds"], told["p50_us"], told["p99_us"], spent)


def _load(address: str, method: str, path: str, requests: int) -> dict[str, float]:
    command = [sys.executable, str(HERE / "load.py"), address, method, path, str(CONNECTIONS), str(requests)]
    told: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return told


def _print(
    facts: dict[str, str],
    names: list[str],
    rounds: Rounds,
    medians: dict[tuple[str, str], float],
    sticks: dict[str, float],
    sticks_after: dict[str, float],
) -> None:
    print("small requests: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{CONNECTIONS} connections, load generator on the same cores, rounds interleaved, medians\n")
    print(
        f"{'operation':20} {'registry':22} {'CPU us':>8} {'max/min':>8} {'x ref':>6} {'req/s':>8}"
        f" {'p50 us':>8} {'p99 us':>8}"
    )
    for operation in OPERATIONS:
        for name in names:
            all_ = rounds[name, operation]
            ratio = medians[name, operation] / medians[peers.reference_of(name), operation]
            print(
                f"{operation:20} {name:22} {medians[name, operation]:8.1f}"
                f" {measure.spread([one.cpu_us for one in all_]):8.2f} {ratio:6.2f}"
                f" {measure.median([one.per_second for one in all_]):8.0f}"
                f" {measure.median([one.p50_us for one in all_]):8.0f}"
                f" {measure.median([one.p99_us for one in all_]):8.0f}"
            )
            for beside in all_[0].beside:
                cost = measure.median([one.beside[beside] for one in all_])
                print(f"{'':20}   not counted above: {beside}'s own CPU, {cost:.1f} us per request")
    print("\nyardsticks of the same run, before and after:")
    for stick, value in sticks.items():
        print(f"  {stick}: {value:.2f}, {sticks_after[stick]:.2f}")


def _verdict(names: list[str], medians: dict[tuple[str, str], float]) -> int:
    worst = 0
    print()
    for name in names:
        reference = peers.reference_of(name)
        if reference == name:
            continue
        for operation in OPERATIONS:
            ratio = medians[name, operation] / medians[reference, operation]
            verdict = "within" if ratio <= GOAL else "ABOVE"
            binding = (name, operation) not in UNJUDGED
            print(f"{name}, {operation}: {ratio:.2f}x {reference}, {verdict} {GOAL}{'' if binding else ' (unjudged)'}")
            worst = max(worst, int(binding and ratio > GOAL))
    return worst


def _keep(
    facts: dict[str, str],
    asked: argparse.Namespace,
    rounds: Rounds,
    sticks: dict[str, float],
    sticks_after: dict[str, float],
) -> None:
    RESULTS.mkdir(exist_ok=True)
    kept = {
        **facts,
        "requests": asked.requests,
        "connections": CONNECTIONS,
        "reference": f"{peers.DISTRIBUTION.package}@{peers.DISTRIBUTION.version}",
        "yardsticks": {"before": sticks, "after": sticks_after},
        "rounds": [
            {"registry": name, "operation": operation, "rounds": [asdict(one) for one in all_]}
            for (name, operation), all_ in rounds.items()
        ],
    }
    path = RESULTS / f"small_requests-{facts['date'].replace(':', '')}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\nresults: {os.path.relpath(path)}")


if __name__ == "__main__":
    sys.exit(main())
