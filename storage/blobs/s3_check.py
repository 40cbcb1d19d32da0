"""Proving by doing that a bucket can be used, and finding out what its store can do beyond the needed.

Everything happens on one scratch object below `meta/`, which is removed again.
"""

import base64
import hashlib
from collections.abc import Awaitable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tenure.core.errors import StorageUnavailable
from tenure.core.ids import new_ulid
from tenure.storage.blobs.driver import Capabilities
from tenure.storage.blobs.s3_client import BROKEN, BucketClient, absent, code_of, passing, status_of

_CONTENT = b"tenure writes, reads and deletes this to prove its rights"
_WRONG_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"})
_WRONG_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})


async def prove(client: BucketClient, prefix: str) -> Capabilities:
    """All rights needed, one after the other; StorageUnavailable names the first that is missing."""
    name = f"{prefix}meta/check-{new_ulid()}"
    proof = _Proof(client)
    await proof.step("s3:ListBucket", "list_objects_v2", Prefix=f"{prefix}b/", MaxKeys=1)
    try:
        await proof.step("s3:PutObject", "put_object", Key=name, Body=_CONTENT, **client.encryption())
        head = await proof.step("s3:GetObject", "head_object", Key=name)
        if head["ContentLength"] != len(_CONTENT):
            raise StorageUnavailable(f"{proof.where} stored an object with another length than was sent")
        await proof.read(name, 0, len(_CONTENT))
        await proof.read(name, 7, 13)
        multipart = await _multipart(proof, name)
        found = {
            "multipart_abort_visible": multipart,
            "conditional_put": await _refused(client.call_once("put_object", Key=name, Body=b"", IfNoneMatch="*")),
            "checksum_verified": await _refused(
                client.call_once("put_object", Key=name, Body=b"", ChecksumSHA256=_sha256(_CONTENT))
            ),
        }
        deleted = await proof.step("s3:DeleteObject", "delete_object", Key=name)
        found["versioning"] = bool(deleted.get("VersionId") or deleted.get("DeleteMarker"))
        if found["versioning"]:
            await _delete_versions(proof, name)
    except StorageUnavailable:
        await _tidy(client.call_once("delete_object", Key=name))
        raise
    return Capabilities(found)


class _Proof:
    """Calls that must succeed; turns refusals into a sentence for the operator, who may know every name."""

    def __init__(self, client: BucketClient) -> None:
        self.client = client
        self.where = f"the bucket {client.bucket!r} at {client.endpoint}"

    async def step(self, right: str, operation: str, **arguments: Any) -> dict[str, Any]:
        deadline, attempt = self.client.patience(), 0
        while True:
            try:
                answer = await self.client.call_once(operation, **arguments)
            except ClientError as error:
                if not passing(error) or not await self.client.pause(attempt, deadline):
                    raise StorageUnavailable(self._sentence(right, error)) from error
            except BROKEN as error:
                if _no_credentials(error) or not await self.client.pause(attempt, deadline):
                    raise StorageUnavailable(f"cannot use {self.where}: {error}") from error
            else:
                if answer is None:
                    raise StorageUnavailable(f"{self.where} does not show what was just written to it ({operation})")
                return answer
            attempt += 1

    async def read(self, name: str, start: int, end: int) -> None:
        answer = await self.step("s3:GetObject", "get_object", Key=name, Range=f"bytes={start}-{end - 1}")
        async with answer["Body"] as body:
            content = await body.read()
        if content != _CONTENT[start:end]:
            raise StorageUnavailable(f"{self.where} answered a request for a range with other bytes")

    def _sentence(self, right: str, error: ClientError) -> str:
        code, status = code_of(error), status_of(error)
        said = error.response.get("Error", {}).get("Message") or code
        if code == "NoSuchBucket" or (status == 404 and right == "s3:ListBucket"):
            return (
                f"there is no bucket {self.client.bucket!r} at {self.client.endpoint}; create it, or correct blobs.url"
            )
        if code in _WRONG_KEY:
            who = self.client.settings.access_key or "of the standard credentials chain"
            return f"{self.client.endpoint} does not accept the access key {who}: {said}"
        if code in _WRONG_REGION:
            return f"{self.where} is not in the region {self.client.settings.region!r}; correct s3.region: {said}"
        if status == 403:
            return f"the right {right} is missing on {self.where}: {said}"
        return f"{self.where} refused what needs {right}: {code} {said}"


async def _multipart(proof: _Proof, name: str) -> bool:
    """Create, send a part, list, abort; whether the store stops showing an aborted upload at once."""
    client = proof.client
    begun = await proof.step("s3:PutObject", "create_multipart_upload", Key=name, **client.encryption())
    upload = {"Key": name, "UploadId": begun["UploadId"]}
    try:
        await proof.step("s3:PutObject", "upload_part", **upload, PartNumber=1, Body=_CONTENT)
        listed = await proof.step("s3:ListMultipartUploadParts", "list_parts", **upload)
        if [part["PartNumber"] for part in listed.get("Parts", ())] != [1]:
            raise StorageUnavailable(f"{proof.where} does not list the part just sent to it")
    except StorageUnavailable:
        await _tidy(client.call_once("abort_multipart_upload", **upload))
        raise
    await proof.step("s3:AbortMultipartUpload", "abort_multipart_upload", **upload)
    return await _refused(client.call_once("list_parts", **upload))


async def _delete_versions(proof: _Proof, name: str) -> None:
    listed = await proof.step("s3:ListBucketVersions", "list_object_versions", Prefix=name)
    for version in [*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())]:
        await proof.step("s3:DeleteObjectVersion", "delete_object", Key=name, VersionId=version["VersionId"])


async def _refused(call: Awaitable[dict[str, Any] | None]) -> bool:
    """Whether the store said no, or not there; a capability is never worth an error."""
    try:
        return await call is None
    except ClientError as error:
        return absent(error) or status_of(error) in (400, 409, 412)
    except BROKEN:
        return False


async def _tidy(call: Awaitable[Any]) -> None:
    try:
        await call
    except (ClientError, *BROKEN):
        return


def _no_credentials(error: Exception) -> bool:
    return isinstance(error, BotoCoreError) and "redentials" in type(error).__name__


def _sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()
