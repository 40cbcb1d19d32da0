"""Settings of the store and the database: sections `[database]`, `[blobs]` and `[s3]`."""

from typing import Literal

import msgspec

from tenure.core.units import parse_duration, parse_size


class Duration(int):
    """Microseconds; written `90s`, `36h`, `7d`."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        return cls(parse_duration(text))


class Size(int):
    """Bytes; written `4096`, `8MiB`."""

    @classmethod
    def parse(cls, text: str) -> "Size":
        return cls(parse_size(text))


class Secret(str):
    """A string that never prints itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


def duration(text: str) -> Duration:
    return Duration.parse(text)


def size(text: str) -> Size:
    return Size.parse(text)


#: what one part of an upload, the beginnings of others and a few downloads take side by side (blobs/budget.py)
LEAST_MEMORY_BUDGET = size("16MiB")


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[database]`"""

    #: sqlite:///path or postgresql://user:password@host/name; empty: tenure.db in the data directory
    url: str = ""
    #: connections a process holds to Postgres at most
    pool_size: int = 10
    #: how long a statement may wait for a database that went away before the request fails with 503
    retry_for: Duration = duration("20s")
    #: Postgres: longest time a statement may run
    statement_timeout: Duration = duration("30s")


class BlobsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[blobs]`"""

    #: file:///path or s3://bucket/prefix; empty: blobs/ in the data directory
    url: str = ""
    #: send clients to the store with a signed URL: auto (only where s3.public_endpoint is set), on, off
    redirect: Literal["auto", "on", "off"] = "auto"
    #: memory that all running uploads and downloads together may hold; at least 16MiB
    memory_budget: Size = size("128MiB")
    #: how long a request may wait for a store that does not answer before it fails with 503
    retry_for: Duration = duration("20s")
    #: new uploads are refused when the disk of the blobs' folder or of the SQLite file has less room than this;
    #: running ones may go on until an eighth of it is left; 0 switches both off
    free_min: Size = size("1GiB")


class S3Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[s3]`: only used with blobs.url = s3://..."""

    #: URL of the store; empty: AWS
    endpoint: str = ""
    #: region of the bucket; most stores other than AWS take any
    region: str = "us-east-1"
    #: put the bucket in the path, as most stores other than AWS want; auto: with an endpoint
    path_style: Literal["auto", "on", "off"] = "auto"
    #: the endpoint under which clients reach the store; switches redirects on
    public_endpoint: str = ""
    #: empty: the standard chain (environment, web identity, profile, instance)
    access_key: str = ""
    #: belongs to access_key
    secret_key: Secret = Secret("")
    #: only with temporary credentials
    session_token: Secret = Secret("")
    #: server-side encryption
    sse: Literal["", "AES256", "aws:kms"] = ""
    #: key for sse = aws:kms; empty: the bucket's own
    sse_key_id: str = ""
    #: certificate authority that signed the endpoint's certificate
    ca_file: str = ""
    #: integrity headers; auto: only the required ones on other stores than AWS
    checksum_mode: Literal["auto", "when_required", "when_supported"] = "auto"
    #: size of a multipart part
    part_size: Size = size("8MiB")
    #: parts of one upload in memory at once: on their way, and the one being filled
    parts_in_flight: int = 4
    #: connections a process holds to the store at most
    max_connections: int = 64
    #: life of a signed URL
    presign_ttl: Duration = duration("1h")
