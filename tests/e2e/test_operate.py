"""Moving in from another registry with the commands of docs/operate.md, from one Tenure to another."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.docker_engine import run
from helpers.go_programs import GoProgram, install
from helpers.pages import block, placed
from helpers.skopeo import Layout, Skopeo
from helpers.tenure_process import tenure

pytestmark = pytest.mark.e2e

PAGE = "docs/operate.md"
REGSYNC = GoProgram("regctl", "github.com/regclient/regclient/cmd/regsync", "v0.11.7", (1, 26))


@pytest.fixture
def old_and_new(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The page's names and the addresses of two registries."""
    with (
        tenure(tmp_path / "old", {}, tmp_path / "old.log") as old,
        tenure(tmp_path / "new", {}, tmp_path / "new.log") as new,
    ):
        yield {"old.example.com": old.address, "new.example.com": new.address}


@pytest.fixture
def digests(old_and_new: dict[str, str], skopeo: Skopeo, tmp_path: Path) -> dict[str, str]:
    """Three tags in the old one, one of them an index over two platforms; digest by tag."""
    layout = Layout(tmp_path / "layout")
    one, two = (layout.image(name, {"a.txt": os.urandom(1000)}) for name in ("amd64", "arm64"))
    tops = {"1.0": one, "1.1": two, "latest": layout.index(one, two)}
    for tag, top in tops.items():
        name = f"docker://{old_and_new['old.example.com']}/team/app:{tag}"
        skopeo.copy(layout.finish("it", top), name, "--all")
    return {tag: str(top["digest"]) for tag, top in tops.items()}


def arrived(new: str, skopeo: Skopeo, digests: dict[str, str]) -> None:
    for tag, digest in digests.items():
        assert skopeo.digest(f"{new}/team/app:{tag}") == digest


def test_with_skopeo(old_and_new: dict[str, str], digests: dict[str, str], skopeo: Skopeo) -> None:
    (line,) = placed(block(PAGE, "sh skopeo"), old_and_new).splitlines()
    words = line.split()
    assert words[0] == "skopeo"
    for _ in range(2):
        skopeo(words[1], *words[2:])
        arrived(old_and_new["new.example.com"], skopeo, digests)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_regsync(old_and_new: dict[str, str], digests: dict[str, str], skopeo: Skopeo, tmp_path: Path) -> None:
    """Slow, because the first run builds the program."""
    program = install(REGSYNC)
    (tmp_path / "regsync.yaml").write_text(placed(block(PAGE, "yaml regsync"), old_and_new))
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    run(["sh", "-ec", block(PAGE, "sh regsync")], environment, cwd=tmp_path)
    arrived(old_and_new["new.example.com"], skopeo, digests)
