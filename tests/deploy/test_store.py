"""The S3 store of deploy/compose.yaml: its command line, run, is a store that Tenure accepts."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.s3 import weed

COMPOSE = Path(__file__).resolve().parents[2] / "deploy" / "compose.yaml"
SECRET = "0123456789abcdef"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    return found


@pytest.fixture
def store(services: dict[str, Any], tmp_path: Path) -> Iterator[dict[str, int]]:
    """The store, started with the file's own arguments; only folder, name and ports are this machine's."""
    places = {"-dir=/data": f"-dir={tmp_path}", "-ip=store": "-ip=127.0.0.1", "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1"}
    ports = dict(zip(("s3", "master", "volume", "filer"), free_ports(4), strict=True))
    given = [argument for argument in services["store"]["command"] if not argument.startswith("-s3.port=")]
    assert set(places) <= set(given)
    command = [places.get(argument, argument) for argument in given]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_SECRET_ACCESS_KEY": SECRET}
    environment["AWS_ACCESS_KEY_ID"] = services["store"]["environment"]["AWS_ACCESS_KEY_ID"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([weed(), *command], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        # What the file's health check asks.
        assert services["store"]["healthcheck"]["test"][-1] == "http://127.0.0.1:8333/healthz"
        until_healthy(f"http://127.0.0.1:{ports['s3']}/healthz", process, tmp_path / "log")
        yield ports
    finally:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports whose twin 10,000 above, which the store takes too, is a port."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with socket.socket() as lower, socket.socket() as twin:
            try:
                lower.bind(("127.0.0.1", port - 20000))
                twin.bind(("127.0.0.1", port - 10000))
            except OSError:
                continue
        found.append(port - 20000)
    return found


def until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.HTTPError):
            assert process.poll() is None and time.monotonic() < ends, log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)


def made_bucket(services: dict[str, Any], ports: dict[str, int]) -> str:
    """The one-shot service's line, with this machine's names."""
    (line,) = services["bucket"]["command"]
    assert services["bucket"]["entrypoint"] == ["sh", "-c"]
    options: str = services["bucket"]["environment"]["SHELL_OPTIONS"]
    for name in ("master", "filer"):
        default = {"master": "store:9333", "filer": "store:8888"}[name]
        assert default in options
        options = options.replace(default, f"127.0.0.1:{ports[name]}")
    environment = {"PATH": f"{Path(weed()).parent}:{os.environ['PATH']}", "SHELL_OPTIONS": options}
    ran = subprocess.run(
        ["sh", "-c", line.replace("$$", "$")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
    )  # fmt: skip
    return ran.stdout


def check(services: dict[str, Any], ports: dict[str, int], folder: Path, secret: str) -> str:
    """What `tenure check` says with the settings of a replica."""
    settings = {name: text for name, text in services["tenure-1"]["environment"].items() if "S3" in name}
    settings |= {
        "TENURE_S3_ENDPOINT": f"http://127.0.0.1:{ports['s3']}",
        "TENURE_S3_SECRET_KEY": secret,
        "TENURE_BLOBS_RETRY_FOR": "1s",
        "TENURE_BLOBS_URL": services["tenure-1"]["environment"]["TENURE_BLOBS_URL"],
    }
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TENURE_")}
    ran = subprocess.run(
        [sys.executable, "-m", "tenure", "check", "--data-dir", str(folder / "tenure")],
        env=clean | settings, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return next(line for line in ran.stdout.splitlines() if "store" in line.split()[1])


def test_the_store_grants_what_tenure_needs_to_its_key_alone(
    services: dict[str, Any], store: dict[str, int], tmp_path: Path
) -> None:
    assert check(services, store, tmp_path, SECRET).startswith("MISSING"), "the bucket is not there yet"
    assert "created bucket images" in made_bucket(services, store)
    # `docker compose up` runs it each time.
    assert "created" not in made_bucket(services, store)
    assert check(services, store, tmp_path, SECRET).startswith("ok")
    assert check(services, store, tmp_path, "another secret").startswith("MISSING")
