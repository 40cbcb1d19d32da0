"""Runs the official OCI conformance suite against Tenure on each profile: `python conformance/run.py`.

Every optional API and every kind of data is switched on. The exit code is 0 only when every run counts exactly
what expected.json says, without a failure and without a skip that is not the suite's own. See README.md.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import expected  # noqa: E402
import suite  # noqa: E402

from helpers.go_programs import install  # noqa: E402
from helpers.profiles import PROFILES, profile  # noqa: E402
from helpers.tenure_process import NotServing  # noqa: E402

RESULTS = HERE / "results"
#: The one setting that is not the default: the suite's sparse data names a layer that is never pushed.
SETTINGS = {"TENURE_PUSH_ALLOW_MISSING": "all"}


@dataclass(frozen=True, slots=True)
class Run:
    """One run and what is wrong with it, in sentences."""

    profile: str
    version: str
    outcome: suite.Outcome
    seconds: float
    wrong: tuple[str, ...]


def main() -> int:
    """0: as the table says; 1: not; 2: the suite or a server could not be started."""
    asked = _arguments()
    try:
        program = install(suite.SUITE)
        runs = list(_runs(program, asked))
    except (NotServing, suite.SuiteFailed, subprocess.SubprocessError, RuntimeError) as error:
        print(f"conformance could not run: {error}", file=sys.stderr)
        return 2
    if asked.record:
        _record(runs)
    _print_summary(runs)
    return 1 if any(run.wrong for run in runs) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="the official OCI conformance suite against Tenure")
    parser.add_argument("--profile", choices=PROFILES, action="append", help="only this profile; may be repeated")
    parser.add_argument("--version", choices=suite.VERSIONS, action="append", help="only this version of the suite")
    parser.add_argument("--registry", metavar="HOST:PORT", help="a registry that runs already, of any make; no table")
    parser.add_argument(
        "--record", action="store_true", help="write the counts to expected.json; failures are never written"
    )
    return parser.parse_args()


def _runs(program: Path, asked: argparse.Namespace) -> Iterator[Run]:
    versions = asked.version or suite.VERSIONS
    for name in [asked.registry] if asked.registry else asked.profile or PROFILES:
        folder = RESULTS / name.replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        running = contextlib.nullcontext(name) if asked.registry else _tenure(name, folder)
        with running as address:
            for version in versions:
                yield _run(program, address, name, version, folder, asked)


@contextlib.contextmanager
def _tenure(name: str, folder: Path) -> Iterator[str]:
    with profile(name, SETTINGS, folder / "server.log") as serving:
        yield serving.address


def _run(program: Path, address: str, name: str, version: str, folder: Path, asked: argparse.Namespace) -> Run:
    print(f"{name}, suite {version}, at {address}", flush=True)
    table = expected.load()
    start = time.monotonic()
    outcome = suite.run(program, address, version, folder / version)
    seconds = time.monotonic() - start
    wrong = expected.faults(outcome, table.allowed_skips)
    if not asked.registry and not asked.record:
        wrong += expected.differences(table, name, version, outcome)
    for sentence in wrong:
        print(f"  {sentence}")
    return Run(name, version, outcome, seconds, tuple(wrong))


def _record(runs: list[Run]) -> None:
    sound = {(run.profile, run.version): run.outcome for run in runs if not run.wrong}
    expected.record(sound, expected.load().allowed_skips)


def _print_summary(runs: list[Run]) -> None:
    words = ("pass", "fail", "error", "skip", "disabled")
    width = max(len(run.profile) for run in runs)
    print(f"\nsuite {suite.SUITE.version}, every OCI_API_* and OCI_DATA_* option on")
    print(f"{'profile':{width}}  version" + "".join(f"{word:>10}" for word in words) + "   seconds  as expected")
    for run in runs:
        counts = "".join(f"{run.outcome.counts[word]:>10}" for word in words)
        print(f"{run.profile:{width}}  {run.version:7}{counts}{run.seconds:>10.1f}  {'no' if run.wrong else 'yes'}")
    print(f"reports: {RESULTS}")
    totals = {word: sum(run.outcome.counts[word] for run in runs) for word in words}
    # A run that only counts otherwise than the table has failed as a whole.
    failed = totals["fail"] + totals["error"]
    failed = failed or sum(1 for run in runs if run.wrong)
    print(f"conformance: {totals['pass']} passed, {failed} failed, {totals['skip'] + totals['disabled']} skipped")


if __name__ == "__main__":
    sys.exit(main())
