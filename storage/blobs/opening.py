"""From `blobs.url` to an open driver."""

from pathlib import Path
from urllib.parse import urlsplit

from tenure.storage.blobs.budget import MemoryBudget
from tenure.storage.blobs.driver import BlobDriver, Observe
from tenure.storage.blobs.folder import FolderDriver, folder_from_url
from tenure.storage.blobs.s3 import S3Driver
from tenure.storage.blobs.s3_client import bucket_from_url
from tenure.storage.room import KEPT_FREE
from tenure.storage.settings import BlobsSettings, S3Settings


async def open_driver(
    blobs: BlobsSettings, s3: S3Settings, default_root: Path, *, observe: Observe | None = None
) -> BlobDriver:
    """The driver `blobs.url` asks for; a folder at `default_root` when it is empty. `check` has not run yet.

    ValueError for a URL of no known form; StorageUnavailable when [s3] cannot be used.
    """
    scheme = urlsplit(blobs.url).scheme
    if scheme == "s3":
        bucket, prefix = bucket_from_url(blobs.url)
        return await S3Driver.open(bucket, prefix, blobs, s3, observe)
    if scheme not in ("", "file") or (blobs.url and not scheme):
        raise ValueError(f"blobs.url = {blobs.url!r} is not understood; write file:///path or s3://bucket/prefix")
    root = folder_from_url(blobs.url) if blobs.url else default_root
    reserve = blobs.free_min // KEPT_FREE
    return FolderDriver(root.absolute(), MemoryBudget(blobs.memory_budget), observe, reserve=reserve)
