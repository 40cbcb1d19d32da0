"""The registries of a run: Tenure on both profiles and distribution v3, each a process on a free port."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from helpers.go_programs import GoProgram, install
from helpers.profiles import profile
from helpers.tenure_process import free_port, process

DISTRIBUTION = GoProgram(
    name="distribution",
    package="github.com/distribution/distribution/v3/cmd/registry",
    version="v3.1.2",
    needs=(1, 26),
)
#: As its own example, with the descriptor cache in memory (which makes it faster) and without a line of log per
#: request (likewise). Tenure runs with its defaults, log included.
_DISTRIBUTION_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: "{folder}"}}
  delete: {{enabled: true}}
http: {{addr: "{address}"}}
"""
REFERENCE = "distribution v3"
NAMES = ("tenure sqlite-folder", "tenure postgres-s3", REFERENCE)


@dataclass(frozen=True, slots=True)
class Peer:
    """A registry that answers. `beside` are servers it leans on, by name: their CPU is shown, never added."""

    name: str
    address: str
    pid: int
    beside: dict[str, int] = field(default_factory=dict)
    database_url: str = ""


@contextlib.contextmanager
def serve(name: str) -> Iterator[Peer]:
    """Starts one of NAMES with empty storage in a temporary folder. Raises NotServing."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as scratch:
        folder = Path(scratch)
        running = _distribution(folder) if name == REFERENCE else _tenure(name, folder)
        with running as peer:
            yield peer


@contextlib.contextmanager
def _tenure(name: str, folder: Path) -> Iterator[Peer]:
    with profile(name.removeprefix("tenure "), {}, folder / "server.log") as serving:
        yield Peer(name, serving.address, serving.pid, dict(serving.beside), serving.database_url)


@contextlib.contextmanager
def _distribution(folder: Path) -> Iterator[Peer]:
    program = install(DISTRIBUTION)
    address = f"127.0.0.1:{free_port()}"
    config = folder / "distribution.yml"
    config.write_text(_DISTRIBUTION_CONFIG.format(folder=folder / "storage", address=address))
    command = [str(program), "serve", str(config)]
    # Its settings can come from REGISTRY_* too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REGISTRY_", "OTEL_"))}
    environment["OTEL_TRACES_EXPORTER"] = "none"
    log = folder / "distribution.log"
    with process(command, address, log, environment=environment, cwd=folder) as serving:
        yield Peer(REFERENCE, serving.address, serving.pid)
