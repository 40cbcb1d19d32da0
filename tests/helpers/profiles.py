"""Tenure on its two profiles, whole: the process, and where needed a real Postgres and a real S3 store beside it."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers.tenure_process import tenure

PROFILES = ("sqlite-folder", "postgres-s3")


@dataclass(frozen=True, slots=True)
class Profile:
    """Tenure, answering. `beside` are the servers it leans on and their processes; `database_url` is "" for SQLite."""

    address: str
    pid: int
    beside: Mapping[str, int] = field(default_factory=dict)
    database_url: str = ""


@contextlib.contextmanager
def profile(name: str, settings: Mapping[str, str], log: Path) -> Iterator[Profile]:
    """Starts one of PROFILES, empty, in a temporary folder. Raises NotServing."""
    with (
        tempfile.TemporaryDirectory(prefix=f"tenure-{name}-") as scratch,
        tenure(Path(scratch) / "data", settings, log) as serving,
    ):
        yield Profile(serving.address, serving.pid)
