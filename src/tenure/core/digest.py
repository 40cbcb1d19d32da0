"""Content digests: parse, print, pack.

A digest is written `algorithm:hex` on the wire (OCI image-spec, descriptor.md) and kept in the database as
one algorithm byte followed by the raw hash, so that two algorithms of one length can never be confused.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from tenure.core.errors import DigestInvalid

SHA256 = "sha256"
SHA512 = "sha512"

#: algorithm -> (byte stored in front of the hash, length of the hash in bytes)
ALGORITHMS: dict[str, tuple[int, int]] = {SHA256: (1, 32), SHA512: (2, 64)}
_BY_BYTE = {number: name for name, (number, _) in ALGORITHMS.items()}
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+\Z")


@dataclass(frozen=True, slots=True)
class Digest:
    """One content digest. `packed` is the database form, `str()` the wire form."""

    algorithm: str
    raw: bytes

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read `sha256:<64 lower-case hex>` or `sha512:<128 ...>`; DigestInvalid for anything else."""
        return _parse(text)

    @classmethod
    def unpack(cls, packed: bytes) -> "Digest":
        """The reverse of `packed`."""
        return cls(_BY_BYTE[packed[0]], bytes(packed[1:]))

    @classmethod
    def of(cls, content: bytes, algorithm: str = SHA256) -> "Digest":
        return cls(algorithm, hashlib.new(algorithm, content).digest())

    @property
    def packed(self) -> bytes:
        """Algorithm byte and raw hash: the form of every digest column."""
        return bytes((ALGORITHMS[self.algorithm][0],)) + self.raw

    @property
    def hex(self) -> str:
        return self.raw.hex()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.raw.hex()}"


def looks_like_digest(reference: str) -> bool:
    """A reference with a colon is meant as a digest: a tag cannot hold one (distribution-spec, pulling)."""
    return ":" in reference


# Popular content is asked for again and again by the same text. Refusals are not kept.
@lru_cache(maxsize=4096)
def _parse(text: str) -> Digest:
    if len(text) > 256 or not _GRAMMAR.match(text):
        raise DigestInvalid("a digest is written algorithm:hex, for example sha256:<64 hex digits>")
    algorithm, _, encoded = text.partition(":")
    known = ALGORITHMS.get(algorithm)
    if known is None:
        raise DigestInvalid(f"digest algorithm {algorithm!r} is not supported; use sha256 or sha512")
    if len(encoded) != 2 * known[1] or not re.fullmatch(r"[0-9a-f]+", encoded):
        raise DigestInvalid(f"a {algorithm} digest has {2 * known[1]} lower-case hex digits")
    return Digest(algorithm, bytes.fromhex(encoded))
