"""From settings to drivers, and the arithmetic of parts."""

from pathlib import Path

import pytest

from tenure.core.ids import new_object_key
from tenure.storage.blobs.budget import MemoryBudget
from tenure.storage.blobs.driver import LocalFiles, Redirects
from tenure.storage.blobs.folder import FolderDriver
from tenure.storage.blobs.opening import open_driver
from tenure.storage.blobs.s3 import S3Driver
from tenure.storage.blobs.s3_client import bucket_from_url
from tenure.storage.blobs.s3_writer import MOST_PARTS, part_size
from tenure.storage.settings import BlobsSettings, S3Settings, Secret

MIB = 1 << 20
S3 = S3Settings(endpoint="http://127.0.0.1:9", access_key="key", secret_key=Secret("secret"))


async def test_an_empty_url_is_the_folder_beside_the_data(tmp_path: Path) -> None:
    driver = await open_driver(BlobsSettings(), S3Settings(), tmp_path / "blobs")
    assert isinstance(driver, FolderDriver)
    assert isinstance(driver, LocalFiles)
    assert not isinstance(driver, Redirects)
    assert driver.root == tmp_path / "blobs"
    await driver.close()


async def test_a_file_url_names_a_folder(tmp_path: Path) -> None:
    driver = await open_driver(BlobsSettings(url=f"file://{tmp_path}/a%20b"), S3Settings(), Path("/nowhere"))
    assert isinstance(driver, FolderDriver)
    assert driver.root == tmp_path / "a b"
    await driver.close()


@pytest.mark.parametrize("url", ["/srv/blobs", "ftp://host/blobs", "file://host/blobs", "file:blobs", "s3:///prefix"])
async def test_other_urls_are_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="write"):
        await open_driver(BlobsSettings(url=url), S3Settings(), Path("/nowhere"))


def test_an_s3_url_is_a_bucket_and_a_prefix() -> None:
    assert bucket_from_url("s3://bucket") == ("bucket", "")
    assert bucket_from_url("s3://bucket/") == ("bucket", "")
    assert bucket_from_url("s3://bucket/a/b/") == ("bucket", "a/b/")


@pytest.mark.parametrize(
    ("redirect", "public", "wanted"),
    [
        ("auto", "", None),
        ("auto", "https://public.example", "https://public.example/bucket/"),
        ("on", "", "http://127.0.0.1:9/bucket/"),
        ("off", "https://public.example", None),
    ],
)
async def test_redirects_are_on_where_they_were_asked_for(redirect: str, public: str, wanted: str | None) -> None:
    s3 = S3Settings(endpoint=S3.endpoint, access_key=S3.access_key, secret_key=S3.secret_key, public_endpoint=public)
    blobs = BlobsSettings(url="s3://bucket", redirect=redirect)  # type: ignore[arg-type]
    driver = await open_driver(blobs, s3, Path("/nowhere"))
    assert isinstance(driver, S3Driver)
    assert isinstance(driver, Redirects)
    url = driver.presign(new_object_key(), "text/plain")
    assert url is None if wanted is None else (url or "").startswith(wanted)
    await driver.close()


def test_a_key_leads_nowhere_else(tmp_path: Path) -> None:
    driver = FolderDriver(tmp_path, MemoryBudget(MIB))
    for key in ("../b/00/01M00000000000000000000000", "b/00/../../etc/passwd", "/etc/passwd", "b/zz/x", ""):
        with pytest.raises(ValueError, match="not the key"):
            driver.path(key)


def test_parts_grow_so_that_ten_thousand_hold_a_large_object() -> None:
    share = 128 * MIB * 3 // 4
    sizes = [part_size(number, 8 * MIB, share) for number in range(1, MOST_PARTS + 1)]
    assert sizes[0] == 8 * MIB
    assert sizes == sorted(sizes)
    assert max(sizes) == share
    assert sum(sizes) > 840 << 30
    assert sum(part_size(number, 8 * MIB, 2 * share) for number in range(1, MOST_PARTS + 1)) > 1 << 40


def test_no_part_is_smaller_than_the_store_takes() -> None:
    assert part_size(1, MIB, 128 * MIB) == part_size(1, 8 * MIB, MIB) == 5 * MIB
