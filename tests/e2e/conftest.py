"""Real clients against a real process, on both profiles. A client that is absent is a failure, not a skip."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.docker_engine import DockerEngine, engine
from helpers.profiles import PROFILES, Profile, profile
from helpers.skopeo import Skopeo


@pytest.fixture(scope="session", params=PROFILES)
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    """A registry of its own for each profile, empty at first."""
    log = tmp_path_factory.mktemp("registry") / "server.log"
    with profile(request.param, {}, log) as running:
        yield running


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    with engine(tmp_path_factory.mktemp("docker")) as running:
        yield running


@pytest.fixture(scope="session")
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Skopeo:
    return Skopeo.found(tmp_path_factory.mktemp("skopeo"))


@pytest.fixture
def build(docker: DockerEngine, tmp_path: Path):
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
