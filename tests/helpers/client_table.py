"""The matrix as a document: what ran and passed in one run, and nothing else."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.client import Client, Row
from helpers.client_place import PLACES

PAGE = Path(__file__).resolve().parents[2] / "docs/clients.md"
#: where a test of the matrix writes down which cell it is, and with which version of the client
CELL = "cell"
_HEAD = """# Clients

Made by `make e2e-all ARGS=--record`, last on {date}. `make e2e` drives the same clients without the slow ones and
prints the first table. A cell is *yes* when its test ran in that run and passed, on the server as well as in the
client: what a client reports is compared with what the registry serves.

The tests are [tests/e2e/test_clients.py](../tests/e2e/test_clients.py); they need root and, from Debian, docker.io,
containerd, podman, buildah and skopeo. The others come at exact versions: Go programs through the Go client, into
`$XDG_CACHE_HOME/tenure`, and oras-py out of the lock file.

Four registries: SQLite with a folder and Postgres with S3, each over plain HTTP and over TLS with an authority of the
tests' own. In the first table *yes* says: in every one where the row applies; *-* says: does not apply, and the
client's own table says why. Clients are given a proxy that is not there, so that they reach nothing but the loopback
address; the daemons of docker and containerd are not.
"""
_TAIL = """## Not driven, or not wholly

* **BuildKit** (buildctl with buildkitd, docker buildx): no test yet. Debian 12 has no package of either.
* **docker over TLS** is driven, but takes any certificate on the loopback address, where the tests' registries are.
"""


class Results:
    """The cells of one run, also of a run in several processes."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str, str], bool] = {}
        self.versions: dict[str, str] = {}

    def take(self, report: pytest.TestReport) -> None:
        """A cell holds when every phase of its test passed."""
        for name, value in report.user_properties:
            if name == CELL and isinstance(value, list | tuple):
                client, row, place, version = value
                key = (client, row, place)
                self.cells[key] = self.cells.get(key, True) and report.passed
                self.versions[client] = self.versions.get(client) or version

    def word(self, client: type[Client], row: Row, place: str) -> str:
        """A cell of a client's own table."""
        if client.why_not(row, place):
            return "-"
        passed = self.cells.get((client.name, row.value, place))
        return {True: "yes", False: "NO", None: "not run"}[passed]

    def all_places(self, client: type[Client], row: Row) -> str:
        """A cell of the first table."""
        words = {self.word(client, row, place) for place in PLACES if not client.why_not(row, place)} or {"-"}
        return words.pop() if len(words) == 1 else "in part"

    def overview(self, clients: Sequence[type[Client]]) -> list[str]:
        head = ["", *(client.name for client in clients)]
        rows = [[row.value, *(self.all_places(client, row) for client in clients)] for row in Row]
        return _table(head, rows)


def write(results: Results, clients: Sequence[type[Client]]) -> None:
    """Writes docs/clients.md."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    parts = [_HEAD.format(date=today), *results.overview(clients), ""]
    for client in clients:
        version = results.versions.get(client.name, "not run")
        parts += [f"## {client.name} {version}", "", f"{client.origin}.", "", *_one(results, client), ""]
    PAGE.write_text("\n".join([*parts, _TAIL]), "utf-8")


def _one(results: Results, client: type[Client]) -> list[str]:
    head = ["", *(place.replace("https", "TLS").replace("http", "HTTP") for place in PLACES), "why not"]
    rows = []
    for row in Row:
        words = [results.word(client, row, place) for place in PLACES]
        reasons = next((why for place in reversed(PLACES) if (why := client.why_not(row, place))), "")
        rows.append([row.value, *words, reasons])
    return _table(head, rows)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * max(width, 3) for width in widths], *rows]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
