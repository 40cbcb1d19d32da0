"""The first lines a newcomer types work as they stand in README.md."""

import re
from pathlib import Path

import pytest

from helpers.docker_engine import DockerEngine, run
from helpers.tenure_process import process

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]


def block(language: str) -> list[str]:
    """The lines of README's code block of this kind."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no block {language}"
    return found[1].splitlines()


def test_the_page_opens_with_the_two_commands() -> None:
    lines = block("sh")
    assert [line.split("#")[0].strip() for line in lines] == ["make run", "make test"]


def test_the_docker_lines_work_as_written(docker: DockerEngine, tmp_path: Path) -> None:
    lines = block("sh docker")
    address = "127.0.0.1:5000"
    assert sum(address in line for line in lines) == len(lines) >= 4
    command = ["make", "--no-print-directory", "run", f"DATA={tmp_path / 'data'}"]
    with process(command, address, tmp_path / "log", environment=docker.environment, cwd=ROOT) as serving:
        for line in lines:
            run(["sh", "-ec", line], docker.environment, cwd=ROOT)
        said = serving.log.read_text()
    assert f"docker tag IMAGE {address}/IMAGE" in said and f"docker push {address}/IMAGE" in said
    docker.forget(f"{address}/hello:1")
