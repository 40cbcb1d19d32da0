"""Tags that stand for referrers: `sha256-<hex>` (distribution-spec, referrers tag schema) and cosign's
`sha256-<hex>.sig`, `.att`, `.sbom`. What carries such a tag follows the subject that the tag names."""

import re

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import ALGORITHMS, Digest
from tenure.core.manifest import Kind, Manifest
from tenure.storage.meta.database import Session
from tenure.storage.meta.statements import any_of, insert
from tenure.storage.meta.tables import manifest_edges, manifests, tags

_SUFFIXES = ("", ".sig", ".att", ".sbom")
_SCHEME = re.compile(r"(sha256|sha512)-([0-9a-f]+)(\.sig|\.att|\.sbom)?\Z")

_SUBJECT = (
    sa.select(manifests.c.id)
    .where(manifests.c.repo_id == bindparam("repo"), manifests.c.digest == bindparam("subject"), manifests.c.live == 1)
    .with_for_update(read=True, key_share=True)
)
_CARRIERS = (
    sa.select(manifests.c.id, manifests.c.digest)
    .join(tags, tags.c.manifest_id == manifests.c.id)
    .where(tags.c.repo_id == bindparam("repo"), any_of(tags.c.name, "names"))
    .order_by(manifests.c.id)
)
_LISTED = sa.select(manifest_edges.c.child_id, manifest_edges.c.child_digest).where(
    manifest_edges.c.parent_id == bindparam("index"),
    manifest_edges.c.kind == 1,
    manifest_edges.c.child_id.is_not(None),
)
_ADD_EDGE = insert(manifest_edges).on_conflict_do_nothing(index_elements=["parent_id", "kind", "child_digest"])
_DROP_OLD = sa.delete(manifest_edges).where(
    manifest_edges.c.parent_id == bindparam("parent"),
    manifest_edges.c.kind == 2,
    manifest_edges.c.child_id != bindparam("keep"),
    manifest_edges.c.child_id.in_(
        sa.select(manifests.c.id).where(
            manifests.c.repo_id == bindparam("repo"),
            # An index that once carried this tag: it has no subject of its own and no other reason to stay.
            manifests.c.subject.is_(None),
            manifests.c.media_type == bindparam("type"),
            sa.not_(sa.exists().where(tags.c.manifest_id == manifests.c.id)),
        )
    ),
)


def subject_of_tag(tag: str) -> Digest | None:
    """The digest a fallback or cosign tag stands for; None for an ordinary tag."""
    match = _SCHEME.match(tag)
    if match is None or len(match[2]) != 2 * ALGORITHMS[match[1]][1]:
        return None
    return Digest(match[1], bytes.fromhex(match[2]))


async def adopt_tag(
    session: Session, repo_id: int, tag: str, manifest_id: int, digest: Digest, manifest: Manifest
) -> None:
    """If this tag stands for a subject that is here, tie the manifest (and what it lists) to it."""
    named = subject_of_tag(tag)
    if named is None or named == digest:
        return
    subject = await session.one(_SUBJECT, {"repo": repo_id, "subject": named.packed})
    if subject is None:
        return  # it finds us when it is pushed (waiting_for)
    tied = {manifest_id: digest.packed}
    if manifest.kind is Kind.INDEX:
        for row in await session.all(_LISTED, {"index": manifest_id}):
            tied[row["child_id"]] = bytes(row["child_digest"])
    tied.pop(subject["id"], None)
    await session.run_many(
        _ADD_EDGE,
        [
            {
                "parent_id": subject["id"],
                "repo_id": repo_id,
                "p_live": 1,
                "kind": 2,
                "child_digest": child,
                "child_id": child_id,
            }
            for child_id, child in sorted(tied.items())
        ],
    )
    await session.run(
        _DROP_OLD,
        {"parent": subject["id"], "keep": manifest_id, "repo": repo_id, "type": manifest.media_type},
    )


async def waiting_for(session: Session, repo_id: int, subject: Digest) -> dict[int, bytes]:
    """Manifests whose tags stand for this subject: id -> packed digest."""
    names = [f"{subject.algorithm}-{subject.hex}{suffix}" for suffix in _SUFFIXES]
    found: dict[int, bytes] = {}
    for row in await session.all(_CARRIERS, {"repo": repo_id, "names": names}):
        found[row["id"]] = bytes(row["digest"])
        for child in await session.all(_LISTED, {"index": row["id"]}):
            found[child["child_id"]] = bytes(child["child_digest"])
    return found
