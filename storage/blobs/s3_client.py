"""Calls to one bucket: one aiobotocore client for the whole process, retried until the budget of time is used up.

Answers come in three kinds: what the store said, None where it says that the thing asked for is not there, and
StorageUnavailable for everything else. The sentence in it is fit for clients; the cause hangs below it.
"""

import asyncio
import functools
import random
import time
from contextlib import AsyncExitStack
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.loaders import create_loader

from tenure.core.clock import SECOND
from tenure.core.errors import StorageUnavailable
from tenure.storage.blobs.driver import Observe
from tenure.storage.blobs.s3_body import Body, sign_known_hashes
from tenure.storage.settings import S3Settings

CONNECT_TIMEOUT = 3  # seconds
READ_TIMEOUT = 30  # seconds without a byte

#: Codes that mean "not there": of an object, a version, a multipart upload. Not NoSuchBucket.
_ABSENT = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload", "NoSuchVersion"})
#: Codes that may pass by themselves although their status is below 500.
_PASSING = frozenset(
    {"SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "Throttling", "ThrottlingException",
     "TooManyRequests", "RequestLimitExceeded", "OperationAborted", "BadDigest", "XAmzContentSHA256Mismatch"}
)  # fmt: skip
#: What breaks between here and the store. BotoCoreError covers time-outs, refused connections and answers that
#: are no XML; what aiohttp raises in the middle of a body comes through untranslated.
BROKEN = (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError)
#: Of those, what no retry can mend.
_HOPELESS = (ParamValidationError, NoCredentialsError, PartialCredentialsError, ProfileNotFound)
# A body above this is hashed in a thread.
_HASH_INLINE = 64 << 10


class BucketClient:
    """One bucket, open. `endpoint` and `path_style` are as the client resolved them."""

    def __init__(
        self,
        client: Any,
        session: AioSession,
        bucket: str,
        settings: S3Settings,
        retry_for: int,
        observe: Observe | None,
    ) -> None:
        self.bucket = bucket
        self.settings = settings
        self.session = session
        self.endpoint: str = client.meta.endpoint_url
        self.path_style = path_style(settings, bucket)
        self._client = client
        self._retry_for = retry_for / SECOND
        self._observe = observe
        self._resources = AsyncExitStack()

    @classmethod
    async def open(cls, bucket: str, settings: S3Settings, retry_for: int, observe: Observe | None = None) -> Self:
        """`retry_for` in microseconds. Talks to nobody yet; StorageUnavailable when there are no credentials."""
        session = new_session()
        resources = AsyncExitStack()
        try:
            client = await resources.enter_async_context(connect(session, bucket, settings))
        except (BotoCoreError, ValueError) as error:
            raise StorageUnavailable(f"the section [s3] of the settings cannot be used: {error}") from error
        opened = cls(client, session, bucket, settings, retry_for, observe)
        opened._resources = resources
        return opened

    async def close(self) -> None:
        await self._resources.aclose()

    async def body(self, content: memoryview) -> Body | bytes:
        """What a call takes as `Body`. Nothing is copied unless it is small: `content` must not change meanwhile."""
        if len(content) <= _HASH_INLINE:
            return bytes(content)
        if integrity(self.settings) == "when_supported" and self.endpoint.startswith("https:"):
            # A checksum behind the body then does what the signed hash does elsewhere.
            return Body(content)
        return await Body.hashed(content)

    async def call(self, operation: str, **arguments: Any) -> dict[str, Any] | None:
        """One call, for example `head_object`; None when what it names is not there."""
        deadline = time.monotonic() + self._retry_for
        attempt = 0
        while True:
            try:
                return await self.call_once(operation, **arguments)
            except ClientError as error:
                if not passing(error):
                    raise refusal(operation, error) from error
                cause: Exception = error
            except _HOPELESS as error:
                raise StorageUnavailable(f"the store cannot be used: {error}") from error
            except BROKEN as error:
                cause = error
            if not await self.pause(attempt, deadline):
                raise StorageUnavailable(
                    "the store that holds the blobs does not answer; try again in a moment"
                ) from cause
            attempt += 1

    async def call_once(self, operation: str, **arguments: Any) -> dict[str, Any] | None:
        """The same without retries and translation: ClientError and BROKEN come through."""
        body = arguments.get("Body")
        if isinstance(body, Body):
            arguments["Body"] = body.again()
        started = time.perf_counter()
        outcome = "failed"
        try:
            answer: dict[str, Any] = await getattr(self._client, operation)(Bucket=self.bucket, **arguments)
            outcome = "ok"
            return answer
        except ClientError as error:
            if absent(error):
                outcome = "absent"
                return None
            outcome = "retried" if passing(error) else "failed"
            raise
        except BROKEN:
            outcome = "retried"
            raise
        finally:
            if self._observe:
                self._observe(operation, time.perf_counter() - started, outcome)

    async def pause(self, attempt: int, deadline: float) -> bool:
        """Wait before try number `attempt` + 1; False when the deadline (time.monotonic) would pass meanwhile."""
        delay = min(2.0, 0.05 * 2**attempt) * random.uniform(0.5, 1.0)
        if time.monotonic() + delay > deadline:
            return False
        await asyncio.sleep(delay)
        return True

    def patience(self) -> float:
        """A fresh deadline on time.monotonic."""
        return time.monotonic() + self._retry_for

    def encryption(self) -> dict[str, str]:
        """What every write says about encryption at rest."""
        said: dict[str, str] = {}
        if self.settings.sse:
            said["ServerSideEncryption"] = self.settings.sse
        if self.settings.sse_key_id:
            said["SSEKMSKeyId"] = self.settings.sse_key_id
        return said


def connect(session: AioSession, bucket: str, settings: S3Settings) -> Any:
    """An asynchronous context whose value is aiobotocore's client for S3."""
    return session.create_client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint or None,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=str(settings.secret_key) or None,
        aws_session_token=str(settings.session_token) or None,
        # Without TLS there is no point in loading certificates.
        verify=settings.ca_file or (False if settings.endpoint.startswith("http://") else None),
        config=client_config(settings, bucket),
    )


@functools.cache
def _models() -> Any:
    return create_loader()


def new_session() -> AioSession:
    """A session that shares the descriptions of the service, which take long to read."""
    sign_known_hashes()
    session = get_session()
    session.register_component("data_loader", _models())
    return session


def integrity(settings: S3Settings) -> str:
    """When botocore adds checksums of its own."""
    if settings.checksum_mode != "auto":
        return settings.checksum_mode
    # Other stores than AWS may not know the newer checksums; the signed SHA-256 of the body protects it on the
    # wire in either mode.
    return "when_required" if settings.endpoint else "when_supported"


def client_config(settings: S3Settings, bucket: str) -> AioConfig:
    wanted = integrity(settings)
    return AioConfig(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=settings.max_connections,
        # Retries are made by `call`, which knows how long a request may wait.
        retries={"mode": "standard", "total_max_attempts": 1},
        s3={"addressing_style": "path" if path_style(settings, bucket) else "virtual"},
        signature_version="s3v4",
        request_checksum_calculation=wanted,
        response_checksum_validation=wanted,
    )


def path_style(settings: S3Settings, bucket: str) -> bool:
    """A bucket with dots cannot be part of a host name under TLS."""
    if settings.path_style == "auto":
        return bool(settings.endpoint) or "." in bucket
    return settings.path_style == "on"


def bucket_from_url(url: str) -> tuple[str, str]:
    """`s3://bucket/some/prefix` -> (`bucket`, `some/prefix/`); ValueError with a sentence otherwise."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{url!r} does not name a bucket; write s3://bucket or s3://bucket/prefix")
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def absent(error: ClientError) -> bool:
    return code_of(error) in _ABSENT


def passing(error: ClientError) -> bool:
    status = status_of(error)
    return (status >= 500 and status != 501) or status == 429 or code_of(error) in _PASSING


def refusal(operation: str, error: ClientError) -> StorageUnavailable:
    """The store said no to a request of ours: settings or rights changed, or the bucket is gone."""
    return StorageUnavailable(
        f"the store that holds the blobs refused a request ({operation}: {code_of(error)}); "
        "the operator finds out more with 'tenure check'"
    )
