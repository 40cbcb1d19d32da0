"""Manifest bytes -> what they name: blobs, children, subject.

The bytes are kept and served as they came; this module only reads them. Every input is hostile: a duplicate
key at any depth, deep nesting, NaN, a body that is both image and index are refused (CVE-2021-41190).
Source: image-spec manifest.md, image-index.md; Docker image manifest v2 schema 2.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeGuard

from tenure.core import media
from tenure.core.digest import Digest
from tenure.core.errors import DigestInvalid, ManifestInvalid

MAX_MANIFEST = 4 << 20  # bytes; distribution-spec, pushing manifests
MAX_DESCRIPTORS = 10_000
MAX_DEPTH = 64

_FIELDS = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "manifests", "subject", "annotations"}
)
_DESCRIPTOR_FIELDS = frozenset(
    {"mediaType", "artifactType", "digest", "size", "urls", "annotations", "data", "platform"}
)

_FOLDED = {fields: frozenset(key.lower() for key in fields) for fields in (_FIELDS, _DESCRIPTOR_FIELDS)}

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class Kind(Enum):
    IMAGE = "image"  # config and layers
    INDEX = "index"  # manifests
    ARTIFACT = "artifact"  # blobs: the withdrawn OCI artifact manifest
    OPAQUE = "opaque"  # none of these: kept, served, nothing followed


class Role(Enum):
    """Why a manifest names a blob; the number is the database's."""

    CONFIG = 1
    LAYER = 2
    ENTRY = 3  # an index entry that is no manifest: a BuildKit cache


@dataclass(frozen=True, slots=True)
class Descriptor:
    """image-spec descriptor.md; `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    has_urls: bool = False

    @property
    def may_be_absent(self) -> bool:
        """Foreign layers are never pushed."""
        return media.is_foreign_layer(self.media_type)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says. `artifact_type` is the one the referrers API shows."""

    kind: Kind
    media_type: str
    artifact_type: str | None
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    entries: tuple[Descriptor, ...]
    subject: Descriptor | None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def blobs(self) -> dict[Digest, tuple[Role, Descriptor]]:
        """Every blob named, once each: a digest may be config and layer at the same time."""
        named: dict[Digest, tuple[Role, Descriptor]] = {}
        if self.config:
            named[self.config.digest] = (Role.CONFIG, self.config)
        for role, group in ((Role.LAYER, self.layers), (Role.ENTRY, self.entries)):
            for descriptor in group:
                named.setdefault(descriptor.digest, (role, descriptor))
        return named

    def child_digests(self) -> tuple[Digest, ...]:
        return tuple(dict.fromkeys(child.digest for child in self.children))


def parse_manifest(payload: bytes, content_type: str | None = None) -> Manifest:
    """Read a manifest; ManifestInvalid with a sentence otherwise.

    `content_type` is the header of the push. The body's `mediaType`, if it has one, must be equal; where
    neither is given the type follows from the fields, as image-spec asks for manifests without mediaType.
    """
    body = load_json(payload)
    if not isinstance(body, dict):
        raise ManifestInvalid("a manifest is a JSON object")
    _check_case(body, _FIELDS)
    media_type = _media_type(body, content_type)
    kind = _kind(body, media_type)
    descriptors = _Descriptors()
    config = descriptors.one(body, "config") if kind is Kind.IMAGE else None
    layers = descriptors.many(body, "blobs" if kind is Kind.ARTIFACT else "layers") if kind is not Kind.INDEX else ()
    listed = descriptors.many(body, "manifests") if kind is Kind.INDEX else ()
    subject = descriptors.one(body, "subject")
    if kind is Kind.IMAGE and config is None:
        raise ManifestInvalid("an image manifest needs a config descriptor")
    return Manifest(
        kind=kind,
        media_type=media_type,
        artifact_type=_artifact_type(body, config),
        config=config,
        layers=layers,
        children=tuple(d for d in listed if media.is_manifest(d.media_type)),
        entries=tuple(d for d in listed if not media.is_manifest(d.media_type)),
        subject=subject,
        annotations=_annotations(body),
    )


def load_json(payload: bytes) -> Any:
    """Strict JSON: UTF-8 without BOM, no duplicate key at any depth, no NaN, bounded depth."""
    _check_depth(payload)
    try:
        return json.loads(payload.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except ManifestInvalid:
        raise
    except UnicodeDecodeError:
        raise ManifestInvalid("a manifest is JSON in UTF-8") from None
    except RecursionError:
        raise ManifestInvalid("the manifest is nested too deeply") from None
    except ValueError as error:
        raise ManifestInvalid(f"the manifest is not valid JSON: {_short(str(error))}") from None


def _check_depth(payload: bytes) -> None:
    # An upper bound that needs no parser: brackets inside strings count too, so only a body with more than
    # MAX_DEPTH of them is walked.
    if payload.count(b"[") + payload.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", payload)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise ManifestInvalid(f"the manifest is nested more than {MAX_DEPTH} levels deep")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ManifestInvalid(f"the key {_short(key)!r} stands twice in one object; readers would disagree")
            seen.add(key)
    return found


def _check_case(body: dict[str, Any], fields: frozenset[str]) -> None:
    """Many readers match keys without case and take the last: what they would follow, we must have seen."""
    for key in body:
        if key not in fields and key.lower() in _FOLDED[fields]:
            raise ManifestInvalid(f"the key {_short(key)!r} differs only by case from one with a meaning")


def _no_constant(name: str) -> Any:
    raise ManifestInvalid(f"{name} is not JSON")


def _media_type(body: dict[str, Any], content_type: str | None) -> str:
    said = body.get("mediaType")
    if said is not None and not isinstance(said, str):
        raise ManifestInvalid("mediaType must be a string")
    header = media.bare(content_type) if content_type else ""
    if header in media.DOCKER_SCHEMA1 or said in media.DOCKER_SCHEMA1 or body.get("schemaVersion") == 1:
        raise ManifestInvalid("image manifests of schema 1 are not supported; push with a current client")
    if said and header and said.lower() != header:
        raise ManifestInvalid(f"Content-Type is {_short(header)} but the manifest's mediaType says {_short(said)}")
    chosen = said or header
    if not chosen:
        chosen = media.OCI_INDEX if "manifests" in body else media.OCI_MANIFEST
    if len(chosen) > 255 or "/" not in chosen or not chosen.isascii() or not chosen.isprintable() or " " in chosen:
        raise ManifestInvalid("the manifest's media type is not of the form type/subtype")
    return chosen


def _kind(body: dict[str, Any], media_type: str) -> Kind:
    if "manifests" in body and ("layers" in body or "config" in body):
        raise ManifestInvalid("a manifest is either an image (config, layers) or an index (manifests), not both")
    if media_type in media.INDEXES:
        if "manifests" not in body:
            raise ManifestInvalid("an index needs a manifests array")
        return Kind.INDEX
    if media_type in media.IMAGES:
        if "manifests" in body:
            raise ManifestInvalid("an image manifest has no manifests array")
        return Kind.IMAGE
    if media_type == media.OCI_ARTIFACT:
        return Kind.ARTIFACT
    # An unknown type is kept; what looks like references is followed all the same, so that no collector
    # takes what it names.
    for key, kind in (("manifests", Kind.INDEX), ("config", Kind.IMAGE), ("blobs", Kind.ARTIFACT)):
        if key in body:
            return kind
    return Kind.OPAQUE


def _artifact_type(body: dict[str, Any], config: Descriptor | None) -> str | None:
    said = body.get("artifactType")
    if said is not None and not _is_short_text(said):
        raise ManifestInvalid("artifactType must be printable text of 255 characters at most")
    return said or (config.media_type if config else None)


def _annotations(body: dict[str, Any]) -> dict[str, str]:
    annotations = body.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise ManifestInvalid("annotations must be an object whose values are strings")
    return annotations


class _Descriptors:
    """Reads descriptors and counts them against MAX_DESCRIPTORS."""

    def __init__(self) -> None:
        self._count = 0

    def one(self, body: dict[str, Any], key: str) -> Descriptor | None:
        value = body.get(key)
        return None if value is None else self._read(value, key)

    def many(self, body: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
        values = body.get(key)
        if values is None:
            return ()
        if not isinstance(values, list):
            raise ManifestInvalid(f"{key} must be an array")
        return tuple(self._read(value, f"{key}[{i}]") for i, value in enumerate(values))

    def _read(self, value: Any, where: str) -> Descriptor:
        self._count += 1
        if self._count > MAX_DESCRIPTORS:
            raise ManifestInvalid(f"a manifest may name {MAX_DESCRIPTORS} descriptors at most")
        if not isinstance(value, dict):
            raise ManifestInvalid(f"{where} must be a descriptor")
        _check_case(value, _DESCRIPTOR_FIELDS)
        media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        if not media_type or not _is_short_text(media_type):
            raise ManifestInvalid(f"{where}.mediaType must be printable text of 255 characters at most")
        if not isinstance(digest, str):
            raise ManifestInvalid(f"{where}.digest must be a string")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 63:
            raise ManifestInvalid(f"{where}.size must be a whole number of bytes")
        try:
            parsed = Digest.parse(digest)
        except DigestInvalid as error:
            raise ManifestInvalid(f"{where}.digest: {error.message}") from None
        return Descriptor(media_type, parsed, size, bool(value.get("urls")))


def _is_short_text(value: Any) -> TypeGuard[str]:
    # No NUL and no half of a surrogate pair: JSON may hold both, a text column of a database neither.
    return isinstance(value, str) and len(value) <= 255 and value.isprintable()


def _short(text: str) -> str:
    # JSON may hold half of a surrogate pair; an answer, which is UTF-8, cannot repeat it.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 120 else text[:117] + "..."
