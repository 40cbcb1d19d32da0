"""The conformance runner's judgement: what it reads from a report, and what it lets pass."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REPORT = """\
<testsuites><testsuite name="OCI Conformance Test" tests="7" failures="1" errors="0" skipped="1">
<testcase name="OCI Conformance Test/ping" status="passed"><system-err>200</system-err></testcase>
<testcase name="OCI Conformance Test/mount" status="skipped"><system-out>fell back to POST</system-out></testcase>
<testcase name="OCI Conformance Test/get" status="failure"><system-out>wrong status&#xA;more</system-out></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "conformance"))
    return importlib.import_module("suite")


@pytest.fixture
def expected(suite: ModuleType) -> ModuleType:
    return importlib.import_module("expected")


def report(folder: Path, options: str = "    pull: true\n") -> Path:
    (folder / "junit.xml").write_text(REPORT)
    (folder / "results.yaml").write_text("config:\n" + options)
    return folder


def test_a_report_gives_counts_and_every_case_that_did_not_pass(suite: ModuleType, tmp_path: Path) -> None:
    outcome = suite._read(report(tmp_path))
    assert outcome.counts == {"pass": 5, "fail": 1, "error": 0, "skip": 1, "disabled": 0}
    assert [(case.status, case.reason) for case in outcome.cases] == [
        ("skip", "fell back to POST"),
        ("fail", "wrong status\nmore"),
    ]


def test_an_option_left_off_is_no_run(suite: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(suite.SuiteFailed, match="sparse: false"):
        suite._read(report(tmp_path, "    pull: true\n    sparse: false\n"))


def test_a_suite_without_a_report_is_no_run(suite: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(suite.SuiteFailed, match="no report"):
        suite._read(tmp_path)


def test_only_a_listed_skip_with_its_reason_is_let_pass(
    suite: ModuleType, expected: ModuleType, tmp_path: Path
) -> None:
    outcome = suite._read(report(tmp_path))
    assert expected.faults(outcome, {"OCI Conformance Test/mount": "fell back"}) == ["fail get: wrong status"]
    other = expected.faults(outcome, {"OCI Conformance Test/mount": "another reason"})
    assert other == ["skip mount: fell back to POST", "fail get: wrong status"]


def test_a_failure_without_a_case_is_a_fault_too(suite: ModuleType, expected: ModuleType) -> None:
    hidden = suite.Outcome({"pass": 1, "fail": 1, "error": 0, "skip": 0, "disabled": 0}, ())
    assert expected.faults(hidden, {})


def test_counts_are_compared_word_by_word(suite: ModuleType, expected: ModuleType) -> None:
    wanted = {"pass": 10, "fail": 0}
    table = expected.Expected(suite.SUITE.version, {"small": {"1.1": wanted}}, {})
    assert expected.differences(table, "small", "1.1", suite.Outcome({"pass": 10, "fail": 0}, ())) == []
    fewer = suite.Outcome({"pass": 9, "fail": 0}, ())
    assert expected.differences(table, "small", "1.1", fewer) == ["pass: the table says 10, this run counted 9"]
    assert expected.differences(table, "large", "1.1", fewer)
    assert expected.differences(expected.Expected("v0", {}, {}), "small", "1.1", fewer)


def test_the_committed_table_is_of_the_pinned_suite_and_promises_no_failure(suite: ModuleType) -> None:
    table = json.loads((ROOT / "conformance" / "expected.json").read_text())
    assert table["suite"] == suite.SUITE.version
    for versions in table["counts"].values():
        assert set(versions) == set(suite.VERSIONS)
        for counts in versions.values():
            assert (counts["fail"], counts["error"], counts["disabled"]) == (0, 0, 0)
            assert counts["skip"] == len(table["allowed_skips"])
