"""Real clients against real processes, on both profiles. A client that is absent is a failure, not a skip."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.client import Client
from helpers.client_containerd import Containerd, containerd
from helpers.client_docker import Docker
from helpers.client_place import PLACES, Place, Places
from helpers.client_table import Results, write
from helpers.clients import CLIENTS
from helpers.docker_engine import DockerEngine, engine
from helpers.skopeo import Skopeo

RESULTS = Results()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write docs/clients.md out of this run")


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with contextlib.ExitStack() as stack:
        yield Places(tmp_path_factory.mktemp("registry"), stack)


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name.split()[0])) for name in PLACES])
def place(request: pytest.FixtureRequest, places: Places) -> Place:
    """Each registry in turn. Not a parametrized session fixture: with tests in any order that would restart them."""
    return places.get(request.param)


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(name.split()[0])) for name in PLACES if name.endswith("http")
    ]
)
def registry(request: pytest.FixtureRequest, places: Places) -> Place:
    """Each profile in turn, over plain HTTP."""
    return places.get(request.param)


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    with engine(tmp_path_factory.mktemp("docker")) as running:
        yield running


@pytest.fixture(scope="session")
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Skopeo:
    return Skopeo.found(tmp_path_factory.mktemp("skopeo"))


@pytest.fixture(scope="session")
def client(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[type[Client]], Client]]:
    """Starts a client when it is first asked for, and keeps it until the end."""
    running: dict[type[Client], Client] = {}
    with contextlib.ExitStack() as stack:

        def started(kind: type[Client]) -> Client:
            if kind not in running:
                # Not below pytest's folder: podman takes no path of more than 50 characters.
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{kind.name}-")))
                if kind is Docker:
                    running[kind] = Docker(folder, request.getfixturevalue("docker"))
                elif kind is Containerd:
                    running[kind] = stack.enter_context(containerd(folder))
                else:
                    running[kind] = kind(folder)
            return running[kind]

        yield started


@pytest.fixture
def build(docker: DockerEngine, tmp_path: Path) -> Callable[[str, dict[str, bytes]], None]:
    """Builds an image FROM scratch out of the files given, under the name given."""

    def made(name: str, files: dict[str, bytes]) -> None:
        folder = tmp_path / "context"
        folder.mkdir(exist_ok=True)
        lines = ["FROM scratch"]
        for file, content in files.items():
            (folder / file).write_bytes(content)
            lines.append(f"COPY {file} /{file}")
        (folder / "Dockerfile").write_text("\n".join([*lines, f'CMD ["/{next(iter(files))}"]']) + "\n")
        docker("build", "-q", "-t", name, str(folder))

    return made


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    RESULTS.take(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not RESULTS.cells:
        return
    terminalreporter.section("clients")
    for line in RESULTS.overview(CLIENTS):
        terminalreporter.write_line(line)
    if config.getoption("--record"):
        write(RESULTS, CLIENTS)
