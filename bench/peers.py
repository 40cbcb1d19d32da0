"""The registries of a run: Tenure on both profiles and distribution v3 on both kinds of store, each on a free port."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from helpers.go_programs import GoProgram, install
from helpers.profiles import profile
from helpers.s3 import create_bucket, seaweedfs
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
  {storage}
  delete: {{enabled: true}}
  redirect: {{disable: true}}
http: {{addr: "{address}"}}
"""
_FOLDER = 'filesystem: {{rootdirectory: "{folder}"}}'
_S3 = (
    "s3: {{region: us-east-1, regionendpoint: {endpoint}, forcepathstyle: true, bucket: {bucket},"
    " accesskey: {access_key}, secretkey: {secret_key}}}"
)
REFERENCE = "distribution v3"
REFERENCE_S3 = "distribution v3 on s3"
NAMES = ("tenure sqlite-folder", REFERENCE, "tenure postgres-s3", REFERENCE_S3)
#: each profile of Tenure beside distribution on the same kind of store
BESIDE = {NAMES[0]: REFERENCE, NAMES[2]: REFERENCE_S3}
_BUCKET = "distribution"


@dataclass(frozen=True, slots=True)
class Peer:
    """A registry that answers. `beside` are servers it leans on, by name: their CPU is shown, never added."""

    name: str
    address: str
    pid: int
    beside: dict[str, int] = field(default_factory=dict)
    database_url: str = ""


def reference_of(name: str) -> str:
    """What a registry's figures are divided by."""
    return BESIDE.get(name, name)


def chosen(asked: list[str] | None) -> list[str]:
    """The registries of a run in their order: those asked for and what they are compared with; all of them for None."""
    wanted = set(asked or NAMES)
    wanted |= {reference_of(name) for name in wanted}
    return [name for name in NAMES if name in wanted]


@contextlib.contextmanager
def serve(name: str) -> Iterator[Peer]:
    """Starts one of NAMES with empty storage in a temporary folder. Raises NotServing."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as scratch:
        folder = Path(scratch)
        if name == REFERENCE:
            running = _distribution(name, folder, _FOLDER.format(folder=folder / "storage"))
        elif name == REFERENCE_S3:
            running = _distribution_on_s3(folder)
        else:
            running = _tenure(name, folder)
        with running as peer:
            yield peer


@contextlib.contextmanager
def _tenure(name: str, folder: Path) -> Iterator[Peer]:
    with profile(name.removeprefix("tenure "), {}, folder / "server.log") as serving:
        yield Peer(name, serving.address, serving.pid, dict(serving.beside), serving.database_url)


@contextlib.contextmanager
def _distribution_on_s3(folder: Path) -> Iterator[Peer]:
    with seaweedfs(folder) as store:
        asyncio.run(create_bucket(store, _BUCKET))
        keys = {"access_key": store.access_key, "secret_key": store.secret_key}
        storage = _S3.format(endpoint=store.endpoint, bucket=_BUCKET, **keys)
        with _distribution(REFERENCE_S3, folder, storage) as peer:
            yield replace(peer, beside={"seaweedfs": store.pid})


@contextlib.contextmanager
def _distribution(name: str, folder: Path, storage: str) -> Iterator[Peer]:
    program = install(DISTRIBUTION)
    address = f"127.0.0.1:{free_port()}"
    config = folder / "distribution.yml"
    config.write_text(_DISTRIBUTION_CONFIG.format(storage=storage, address=address))
    command = [str(program), "serve", str(config)]
    # Its settings can come from REGISTRY_* too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REGISTRY_", "OTEL_"))}
    environment["OTEL_TRACES_EXPORTER"] = "none"
    log = folder / "distribution.log"
    with process(command, address, log, environment=environment, cwd=folder) as serving:
        yield Peer(name, serving.address, serving.pid)
