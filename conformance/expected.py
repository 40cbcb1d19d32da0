"""The committed table of what each run must count, and the skips that are the suite's own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from suite import SUITE, Case, Outcome

TABLE = Path(__file__).with_name("expected.json")


@dataclass(frozen=True, slots=True)
class Expected:
    """`counts` by profile, then version; `allowed_skips` by case name, with the reason in the suite's words."""

    suite: str
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    allowed_skips: Mapping[str, str]


def load() -> Expected:
    """The table as committed."""
    table = json.loads(TABLE.read_text())
    return Expected(table["suite"], table["counts"], table["allowed_skips"])


def record(outcomes: Mapping[tuple[str, str], Outcome], allowed_skips: Mapping[str, str]) -> None:
    """Writes the counts of these runs to the table; runs that are not among them keep theirs."""
    counts = {profile: dict(versions) for profile, versions in load().counts.items()} if TABLE.exists() else {}
    for (profile, version), outcome in sorted(outcomes.items()):
        counts.setdefault(profile, {})[version] = outcome.counts
    table = {"suite": SUITE.version, "counts": counts, "allowed_skips": dict(allowed_skips)}
    TABLE.write_text(json.dumps(table, indent=2) + "\n")


def faults(outcome: Outcome, allowed_skips: Mapping[str, str]) -> list[str]:
    """What no table could excuse: failures, errors, and skips that are not the suite's own. One sentence each."""
    found = [_sentence(case) for case in outcome.cases if not _allowed(case, allowed_skips)]
    if not found and (outcome.counts["fail"] or outcome.counts["error"]):
        # The suite counts at every level but lists leaves only.
        found.append(f"the suite counts {outcome.counts} and lists no case for it")
    return found


def differences(expected: Expected, profile: str, version: str, outcome: Outcome) -> list[str]:
    """Where the counts are not those of the table. One sentence each."""
    if expected.suite != SUITE.version:
        return [f"the table is of suite {expected.suite}, this run of {SUITE.version}: --record it and read the diff"]
    wanted = expected.counts.get(profile, {}).get(version)
    if wanted is None:
        return ["the table has no row for this run: run with --record"]
    words = sorted(wanted.keys() | outcome.counts.keys())
    return [
        f"{word}: the table says {wanted.get(word, 0)}, this run counted {outcome.counts.get(word, 0)}"
        for word in words
        if wanted.get(word, 0) != outcome.counts.get(word, 0)
    ]


def _allowed(case: Case, allowed_skips: Mapping[str, str]) -> bool:
    return case.status == "skip" and allowed_skips.get(case.name, "\0") in case.reason


def _sentence(case: Case) -> str:
    first = case.reason.splitlines()[0] if case.reason else "the suite gives no reason"
    return f"{case.status} {case.name.removeprefix('OCI Conformance Test/')}: {first[:300]}"
