"""docs/operate.md: the commands it marks as run are run, as they stand but for places; names it uses exist."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from helpers.oci import put_image
from helpers.pages import ROOT, block, placed
from helpers.postgres import PostgresServer
from helpers.tenure_process import free_port, process, tenure
from helpers.wire import exchange
from tenure.config.load import keys

PAGE = "docs/operate.md"
RUN = {
    "nginx", "sh migrate", "sh backup-small", "sh restore-small", "sh backup-large", "sh restore-large",
    "sh skopeo", "yaml regsync", "sh regsync",
}  # fmt: skip


def shell(text: str, environment: dict[str, str] | None = None) -> str:
    """Runs lines as a person would who stops at the first failure; what they printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    clean["PATH"] = f"{Path(sys.executable).parent}:{clean['PATH']}"
    ran = subprocess.run(
        ["sh", "-euc", text], env=clean | (environment or {}), cwd="/",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, f"{text}\n{ran.stdout}"
    return ran.stdout


def test_every_block_is_run_or_marked() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    found = re.findall(r"^```(\S.*)$", text, re.MULTILINE)
    assert {kind for kind in found if kind != "sh"} == RUN
    assert len(found) - found.count("sh") == len(RUN)
    # What has no name is run by nobody, and the paragraph before it says so.
    paragraphs = re.findall(r"([^\n].*?)\n\n```sh\n", text, re.DOTALL)
    assert len(paragraphs) == found.count("sh") > 0
    assert all("*not run here*" in before.rpartition("\n\n")[2] for before in paragraphs)


def test_settings_and_links_of_the_page_exist() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    sections = {name.partition(".")[0] for name in keys()}
    named = set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_]+)`", text))
    assert len(named) > 12 and named <= set(keys())


async def test_the_small_profile_is_backed_up_and_restored_as_written(tmp_path: Path) -> None:
    places = {"/srv/tenure": str(tmp_path / "live"), "/backup/tenure": str(tmp_path / "backup")}
    with tenure(tmp_path / "live", {}, tmp_path / "live.log") as serving:
        base = f"http://{serving.address}"
        made = await put_image(base, "app/kept", "1", seed="one")
        lines = placed(block(PAGE, "sh backup-small"), places)
        await asyncio.to_thread(shell, lines)
        second = await put_image(base, "app/kept", "2", seed="two")
        await asyncio.to_thread(shell, lines)

    places = {"/srv/restored": str(tmp_path / "restored"), "/backup/tenure": str(tmp_path / "backup")}
    *copying, serve = placed(block(PAGE, "sh restore-small"), places).splitlines()
    assert "MISSING" not in await asyncio.to_thread(shell, "\n".join(copying))
    address = f"127.0.0.1:{free_port()}"
    command = [str(Path(sys.executable).parent / "tenure"), *serve.split()[1:], "--listen", address]
    with process(command, address, tmp_path / "log", environment=dict(os.environ), cwd=tmp_path):
        for tag, wanted in (("1", made), ("2", second)):
            answer = await exchange(f"http://{address}", "GET", f"/v2/app/kept/manifests/{tag}")
            assert (answer.status, answer.body) == (200, wanted.payload)


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.stop()


async def test_postgres_is_migrated_dumped_and_restored_as_written(postgres: PostgresServer, tmp_path: Path) -> None:
    tools = Path(os.readlink(f"/proc/{postgres.pid}/exe")).parent
    url = postgres.url()
    restored = urlunsplit(urlsplit(url)._replace(path="/restored"))
    environment = {
        "TENURE_DATABASE_URL": url,
        "TENURE_BLOBS_URL": f"file://{tmp_path}/bytes",
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    said = await asyncio.to_thread(shell, block(PAGE, "sh migrate"), environment)
    assert "would apply" in said and "\napplied" in said
    with tenure(tmp_path / "one", {k: v for k, v in environment.items() if k != "PATH"}, tmp_path / "log") as serving:
        made = await put_image(f"http://{serving.address}", "app/kept", "1")
        places = {"/backup/": f"{tmp_path}/"}
        await asyncio.to_thread(shell, placed(block(PAGE, "sh backup-large"), places), environment)
    lines = placed(block(PAGE, "sh restore-large"), places)
    # The page's last line sets a variable for one command; so does the test for the places beside it.
    said = await asyncio.to_thread(shell, lines, environment | {"RESTORED_URL": restored})
    assert "MISSING" not in said and said.count("ok ") == 3
    settings = {"TENURE_DATABASE_URL": restored, "TENURE_BLOBS_URL": environment["TENURE_BLOBS_URL"]}
    with tenure(tmp_path / "two", settings, tmp_path / "log") as serving:
        answer = await exchange(f"http://{serving.address}", "GET", "/v2/app/kept/manifests/1")
        assert answer.body == made.payload


async def test_the_metrics_of_the_page_are_there(tmp_path: Path) -> None:
    text = (ROOT / PAGE).read_text("utf-8").partition("## What to watch")[2].partition("\n## ")[0]
    wanted = set(re.findall(r"`((?:tenure|process)_[a-z_]+)`", text))
    assert len(wanted) >= 10
    with tenure(tmp_path / "data", {}, tmp_path / "log") as serving:
        await put_image(f"http://{serving.address}", "app/counted", "1")
        ends = time.monotonic() + 30
        while True:
            answer = await exchange(f"http://{serving.address}", "GET", "/metrics")
            shown = set(re.findall(r"^# TYPE (\S+) ", answer.body.decode(), re.MULTILINE))
            if wanted <= shown:
                break
            assert time.monotonic() < ends, wanted - shown
            await asyncio.sleep(0.2)
