"""The official suite: which revision, how it is run, and what its report says."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from helpers.go_programs import GoProgram

SUITE = GoProgram(
    name="conformance",
    package="github.com/opencontainers/distribution-spec/conformance",
    version="v0.0.0-20260831232431-97274622c111",
    needs=(1, 24),
)
#: What OCI_VERSION takes here. It only moves the suite's defaults, and no option is left to a default.
VERSIONS = ("1.1", "dev")
#: Every bool the suite reads below OCI_API_ and OCI_DATA_ (its config.go). `run` checks that none was missed.
OPTIONS = (
    "OCI_API_PING",
    "OCI_API_PULL",
    "OCI_API_PUSH",
    "OCI_API_BLOBS_ATOMIC",
    "OCI_API_BLOBS_DELETE",
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_BLOBS_MOUNT_ANONYMOUS",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
    "OCI_API_MANIFESTS_ATOMIC",
    "OCI_API_MANIFESTS_DELETE",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_TAG_PARAM",
    "OCI_API_TAGS_ATOMIC",
    "OCI_API_TAGS_DELETE",
    "OCI_API_TAGS_LIST",
    "OCI_API_REFERRER",
    "OCI_DATA_IMAGE",
    "OCI_DATA_INDEX",
    "OCI_DATA_INDEX_LIST",
    "OCI_DATA_SPARSE",
    "OCI_DATA_ARTIFACT",
    "OCI_DATA_SUBJECT",
    "OCI_DATA_SUBJECT_MISSING",
    "OCI_DATA_ARTIFACT_LIST",
    "OCI_DATA_SUBJECT_LIST",
    "OCI_DATA_DATA_FIELD",
    "OCI_DATA_NONDISTRIBUTABLE",
    "OCI_DATA_CUSTOM_FIELDS",
    "OCI_DATA_NO_LAYERS",
    "OCI_DATA_EMPTY_BLOB",
    "OCI_DATA_SHA512",
)
#: A run takes seconds; this only ends one that hangs.
TIME_LIMIT = 600


class SuiteFailed(Exception):
    """The suite did not run to its end, or did not run what was asked of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A case that did not pass, with the suite's own reason."""

    name: str
    status: str  # skip, fail, error
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts of one run under the suite's five words, and the cases behind all but the passes."""

    counts: dict[str, int]
    cases: tuple[Case, ...]


def run(program: Path, address: str, version: str, reports: Path) -> Outcome:
    """Runs the suite against `address` (HOST:PORT, plain HTTP) and reads its report; `reports` keeps all it wrote.

    Raises SuiteFailed when there is no report or when an option was off.
    """
    reports.mkdir(parents=True, exist_ok=True)
    for old in reports.iterdir():
        old.unlink()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
    environment |= dict.fromkeys(OPTIONS, "true")
    environment |= {
        "OCI_REGISTRY": address,
        "OCI_TLS": "disabled",
        "OCI_VERSION": version,
        "OCI_RESULTS_DIR": str(reports),
    }
    # The suite takes its settings from a file in the working directory too; the reports' folder holds none.
    with (reports / "output.txt").open("wb") as output:
        subprocess.run(
            [str(program)],
            cwd=reports,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=TIME_LIMIT,
            check=False,
        )
    return _read(reports)


def _read(reports: Path) -> Outcome:
    report, results = reports / "junit.xml", reports / "results.yaml"
    if not report.exists() or not results.exists():
        raise SuiteFailed(f"no report; see {reports / 'output.txt'}")
    off = [line.strip() for line in results.read_text().splitlines() if line.endswith(": false")]
    if off:
        raise SuiteFailed(f"the suite ran with options off: {', '.join(off)}; add them to OPTIONS")
    # Written a moment ago by a program that we installed ourselves: no stranger's XML.
    suite = ElementTree.parse(report).getroot().find("testsuite")
    if suite is None:
        raise SuiteFailed(f"{report} holds no test suite")
    counts = {
        "fail": int(suite.get("failures", 0)),
        "error": int(suite.get("errors", 0)),
        "skip": int(suite.get("skipped", 0)),
        "disabled": int(suite.get("disabled", 0)),
    }
    cases = tuple(case for element in suite.findall("testcase") if (case := _case(element)))
    return Outcome({"pass": int(suite.get("tests", 0)) - sum(counts.values()), **counts}, cases)


def _case(element: ElementTree.Element) -> Case | None:
    status = {"passed": "pass", "skipped": "skip", "failure": "fail"}.get(element.get("status", ""), "error")
    if status == "pass":
        return None
    reason = element.findtext("system-out") or ""
    if not reason:
        # A case skipped before its first request says why at the end of its log.
        log = (element.findtext("system-err") or "").strip().splitlines()
        reason = log[-1].strip() if log else ""
    return Case(element.get("name", ""), status, reason.strip())
