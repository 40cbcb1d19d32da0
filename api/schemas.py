"""What the admin API takes and gives. Times are RFC 3339 in UTC, sizes bytes, digests `algorithm:hex`."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tenure.api.route import ChangeQuery, PageQuery

_DIGEST = r"^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
_PREFIX = r"^[a-z0-9._/-]*$"

#: what a text that does not match must be or have, in words: nobody should have to read a regular expression
GRAMMARS = {
    _DIGEST: "be sha256: and 64, or sha512: and 128 lower-case hex digits",
    _PRINTABLE: "have no control characters",
    _PREFIX: "have only a-z 0-9 . _ - and /",
}

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
DigestText = Annotated[str, Meta(pattern=_DIGEST)]
Bytes = Annotated[int, Meta(ge=0)]
#: free text that a database takes: no control characters
Text = Annotated[str, Meta(max_length=1000, pattern=_PRINTABLE)]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is answered."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is taken in a body."""


class Problem(Answer, frozen=True, kw_only=True):
    """Why a request was refused (RFC 9457). `reasons` are sentences, for example what a protection protects."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    reasons: list[str]
    instance: str
    request_id: str


class RepositoryLine(Answer, frozen=True, kw_only=True):
    """A repository in a list."""

    name: str
    tags: int
    manifests: int
    created_at: Time
    pushed_at: Time | None


class RepositoryPage(Answer, frozen=True, kw_only=True):
    """Repositories in the order of their names."""

    items: list[RepositoryLine]
    next: str | None


class Repository(Answer, frozen=True, kw_only=True):
    """A repository. `size` counts each blob that a live manifest names once, in bytes."""

    name: str
    tags: int
    manifests: int
    size: Bytes
    created_at: Time
    pushed_at: Time | None


class Removal(Answer, frozen=True, kw_only=True):
    """What was removed, or with `dry_run` would be. It can be restored until `restorable_until`."""

    dry_run: bool
    repository: str
    tags: Annotated[list[str], Meta(description="Tags that go; of a whole repository the first 1000.")]
    tag_count: int
    manifest_count: int
    restorable_until: Time


class Tag(Answer, frozen=True, kw_only=True):
    """A tag and the manifest it points at. `version` counts its moves, `size` is the manifest's in bytes."""

    name: str
    digest: DigestText
    media_type: str
    size: Bytes
    version: int
    moved_at: Time


class TagPage(Answer, frozen=True, kw_only=True):
    """Tags in the order of their names."""

    items: list[Tag]
    next: str | None


class TagTarget(Request, frozen=True, kw_only=True):
    """Where a tag shall point: at a manifest that is in the same repository already."""

    digest: DigestText


class TagRestore(Request, frozen=True, kw_only=True):
    """Which point of its history a tag goes back to."""

    event: Annotated[int, Meta(ge=1, le=(1 << 62), description="`id` of an event of this tag.")]


class TagMove(Answer, frozen=True, kw_only=True):
    """Where a tag points now, or with `dry_run` would, and where it pointed before."""

    dry_run: bool
    previous: DigestText | None
    tag: Tag


class TagEvent(Answer, frozen=True, kw_only=True):
    """One move of one tag. `old` null: it was created; `new` null: it went."""

    id: int
    tag: str
    old: DigestText | None
    new: DigestText | None
    actor: str
    cause: str
    request_id: str | None
    at: Time


class TagEventPage(Answer, frozen=True, kw_only=True):
    """Moves of tags, newest first."""

    items: list[TagEvent]
    next: str | None


class Platform(Answer, frozen=True, kw_only=True):
    """What an image runs on, from its config or its index."""

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = None


class ManifestLine(Answer, frozen=True, kw_only=True):
    """A manifest in a list. `size` is that of the manifest itself."""

    digest: DigestText
    media_type: str
    artifact_type: str | None
    size: Bytes
    subject: DigestText | None
    tags: list[str]
    pushed_at: Time | None
    pushed_by: str | None


class ManifestPage(Answer, frozen=True, kw_only=True):
    """Manifests, newest first."""

    items: list[ManifestLine]
    next: str | None


class ManifestBlob(Answer, frozen=True, kw_only=True):
    """A blob that a manifest names. `absent` says why it is not here: foreign, sparse or erased."""

    digest: DigestText
    media_type: str
    role: str
    size: Bytes
    absent: str | None


class ManifestChild(Answer, frozen=True, kw_only=True):
    """A manifest that an index lists. `absent` says why it is not here: sparse, erased or severed."""

    digest: DigestText
    media_type: str
    size: Bytes
    platform: Platform | None
    absent: str | None


class Referrer(Answer, frozen=True, kw_only=True):
    """A manifest that names another one as its subject: a signature, an attestation."""

    digest: DigestText
    artifact_type: str | None


class Manifest(Answer, frozen=True, kw_only=True):
    """A manifest and all around it.

    `size` is that of the manifest, `content_size` that of all blobs it names itself. `parents` are the live
    indexes that list it, `referrers` the live manifests whose subject it is; the first 1000 of each.
    """

    repository: str
    digest: DigestText
    media_type: str
    artifact_type: str | None
    size: Bytes
    content_size: Bytes
    tags: list[str]
    platform: Platform | None
    annotations: dict[str, str]
    subject: DigestText | None
    blobs: list[ManifestBlob]
    children: list[ManifestChild]
    parents: list[DigestText]
    referrers: list[Referrer]
    pushed_at: Time | None
    pushed_by: str | None


class Kin(Answer, frozen=True, kw_only=True):
    """An image above or below another one. `layers` is how many layers the two share."""

    repository: str
    digest: DigestText
    layers: int


class KinPage(Answer, frozen=True, kw_only=True):
    """Related images, 1000 at most; `next` is always null."""

    items: list[Kin]
    next: str | None


class AuditEvent(Answer, frozen=True, kw_only=True):
    """Who did what, when and from where."""

    id: int
    at: Time
    actor: str
    address: str | None
    request_id: str | None
    action: str
    repository: str | None
    target: str | None
    outcome: str
    detail: dict[str, Any]


class AuditPage(Answer, frozen=True, kw_only=True):
    """Audit events, newest first."""

    items: list[AuditEvent]
    next: str | None


class RepositoriesQuery(PageQuery, frozen=True, kw_only=True):
    """Which repositories."""

    prefix: Annotated[str, Meta(max_length=255, pattern=_PREFIX, description="Only names that begin with this.")] = ""


class ManifestsQuery(PageQuery, frozen=True, kw_only=True):
    """Which manifests."""

    untagged: Annotated[bool, Meta(description="Only those that no tag points at.")] = False


class AuditQuery(PageQuery, frozen=True, kw_only=True):
    """Which audit events."""

    actor: Annotated[Text | None, Meta(description="Only what this actor did.")] = None
    action: Annotated[Text | None, Meta(description="Only this action, for example `tag.delete`.")] = None
    repository: Annotated[Text | None, Meta(description="Only what concerns this repository.")] = None
    since: Annotated[Time | None, Meta(description="Not before this time.")] = None
    until: Annotated[Time | None, Meta(description="Before this time.")] = None


class DeleteQuery(ChangeQuery, frozen=True, kw_only=True):
    """How to delete."""


class MoveQuery(ChangeQuery, frozen=True, kw_only=True):
    """How to move a tag."""
