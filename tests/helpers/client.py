"""What a client of the matrix can be asked to do. Each row of the matrix is one question to one client."""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from helpers.client_place import Place
from helpers.docker_engine import run


class Row(StrEnum):
    """The rows of the matrix, in the order of the table."""

    PUSH = "push"
    AGAIN = "push again: no blob is sent twice"
    TAG = "pull by tag"
    DIGEST = "pull by digest"
    INDEX = "several platforms: push, pull either"
    MOUNT = "a layer that another repository has is not sent"
    COPY = "copy between repositories, whole and byte for byte"
    TAGS = "list tags"
    CATALOG = "list repositories"
    DELETE = "delete, then push again"
    REFERRERS = "attach, and list what is attached"
    CHUNKS = "upload a blob in chunks"
    VERSIONS = "chart versions: newest of a range"
    MIRROR = "pull through it as a mirror"
    SIGN = "sign and verify"
    ABSENT = "what is absent is said in words"
    STRANGER = "TLS: an unknown authority is refused"


@dataclass(frozen=True, slots=True)
class Ref:
    """What clients call HOST:PORT/repository:tag or @digest."""

    place: Place
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    @property
    def name(self) -> str:
        return f"{self.place.address}/{self.repository}"

    @property
    def reference(self) -> str:
        return self.digest or self.tag

    def at(self, *, tag: str = "", digest: str = "") -> "Ref":
        return replace(self, tag=tag, digest=digest)

    def strange(self) -> "Ref":
        """The same for a client that was not told of the registry's authority."""
        return replace(self, place=self.place.strange())


class Client(ABC):
    """One client, with everything it keeps in a folder of its own.

    A row that stands in `without` does not apply, for the reason given; every other row is tested, so a method that
    is missing fails its test.
    """

    name: ClassVar[str]
    #: where it comes from, for the document
    origin: ClassVar[str]
    without: ClassVar[Mapping[Row, str]]
    #: the same for what it can do over plain HTTP only
    without_tls: ClassVar[Mapping[Row, str]] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def scratch(self) -> Path:
        """A fresh folder."""
        path = self.folder / str(next(self._numbers))
        path.mkdir()
        return path

    def environment(self, place: Place | None = None) -> dict[str, str]:
        """Nothing of the machine's own configuration; and the authority, for clients that have no flag for one."""
        home = {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder)}
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        trusted = {"SSL_CERT_FILE": str(place.ca)} if place is not None and place.ca else {}
        # A proxy that is not there: nothing but the loopback address, which needs none, can be reached.
        shut = {"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1"}
        return {**kept, **home, **shut, "DOCKER_CONFIG": str(self.folder), **trusted}

    def run(self, *command: str, place: Place | None = None, cwd: Path | None = None) -> str:
        """What it said. Raises Failed."""
        return run(list(command), self.environment(place), cwd=cwd)

    @classmethod
    def why_not(cls, row: Row, place: str) -> str:
        """Why a row does not apply on one of the PLACES; "" when it does."""
        tls = place.endswith("https")
        if row is Row.STRANGER and not tls:
            return "there is no authority over plain HTTP"
        return cls.without.get(row) or (cls.without_tls.get(row, "") if tls else "")

    @abstractmethod
    def version(self) -> str:
        """As the program tells it."""

    @abstractmethod
    def push(self, payload: bytes, ref: Ref) -> None:
        """Something that holds `payload`, in whatever form this client makes. Raises Failed."""

    @abstractmethod
    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        """All content of `ref`, unpacked, with nothing of it kept from before. Raises Failed."""

    def push_index(self, payloads: Mapping[str, bytes], ref: Ref) -> None:
        """An image for each architecture, under one name."""
        raise NotImplementedError

    def mount(self, payload: bytes, source: Ref, target: Ref) -> None:
        """Bring what it has pushed to `source` to `target` as it would by itself."""
        raise NotImplementedError

    def copy(self, source: Ref, target: Ref) -> None:
        raise NotImplementedError

    def tags(self, ref: Ref) -> list[str]:
        raise NotImplementedError

    def catalog(self, place: Place) -> list[str]:
        raise NotImplementedError

    def delete(self, ref: Ref) -> None:
        raise NotImplementedError

    def attach(self, payload: bytes, ref: Ref) -> None:
        """Something that refers to `ref`, of the type ARTIFACT."""
        raise NotImplementedError

    def attached(self, ref: Ref) -> list[str]:
        """The digests of what refers to `ref`."""
        raise NotImplementedError

    def push_chunks(self, payload: bytes, ref: Ref) -> None:
        """The same as push, in parts of CHUNK bytes."""
        raise NotImplementedError


#: the type of what `attach` attaches
ARTIFACT = "application/vnd.example.note"
CHUNK = 256 << 10
