"""Which image is built on which: by ChainID, so the order of pushes does not matter.

An image B is built on A when the filesystem A ends with (its last ChainID) is a layer of B below B's last.
Repeated or equal chains of unlike images are legal; no uniqueness rests on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from tenure.core.digest import Digest
from tenure.storage.meta.database import Database, Session
from tenure.storage.meta.records import chain_nodes, image_chains
from tenure.storage.meta.statements import any_of, insert
from tenure.storage.meta.tables import manifests, repos

_ADD_NODE = insert(chain_nodes).on_conflict_do_nothing(index_elements=["chain_id"])
_NODES = sa.select(chain_nodes.c.id, chain_nodes.c.chain_id).where(any_of(chain_nodes.c.chain_id, "chain"))
_ADD_LAYER = insert(image_chains).on_conflict_do_nothing(index_elements=["manifest_id", "depth"])
_own = image_chains.alias("own")
_kin = image_chains.alias("kin")
_own_manifest = manifests.alias("own_manifest")
_KIN = (
    sa.select(repos.c.name.label("repository"), manifests.c.digest, sa.func.max(_kin.c.depth).label("depth"))
    .select_from(
        _own_manifest.join(_own, _own.c.manifest_id == _own_manifest.c.id)
        .join(_kin, _kin.c.node_id == _own.c.node_id)
        .join(manifests, manifests.c.id == _kin.c.manifest_id)
        .join(repos, repos.c.id == manifests.c.repo_id)
    )
    .where(
        _own_manifest.c.digest == bindparam("digest"),
        _own_manifest.c.repo_id
        == sa.select(sa.literal_column("here.id"))
        .select_from(repos.alias("here"))
        .where(sa.literal_column("here.name") == bindparam("repository"), sa.literal_column("here.live") == 1)
        .scalar_subquery(),
        manifests.c.live == 1,
        manifests.c.id != _own_manifest.c.id,
    )
    .group_by(repos.c.name, manifests.c.digest)
    .limit(1000)
)
_ANCESTORS = _KIN.where(_kin.c.whole == 1, _own.c.whole == 0, _kin.c.depth == _own.c.depth).order_by(
    sa.desc("depth"), repos.c.name
)
_DESCENDANTS = _KIN.where(_own.c.whole == 1, _kin.c.whole == 0, _kin.c.depth == _own.c.depth).order_by(repos.c.name)


@dataclass(frozen=True, slots=True)
class Kin:
    """A live image above or below another. `layers` is how many layers the two share."""

    repository: str
    digest: Digest
    layers: int


async def index_chain(session: Session, manifest_id: int, chain: Sequence[Digest]) -> None:
    """Remember the ChainIDs of an image, base first. Twice is once."""
    if not chain:
        return
    packed = [digest.packed for digest in chain]
    # In sorted order, so that two pushes of kindred images cannot wait for each other in a ring.
    await session.run_many(_ADD_NODE, [{"chain_id": chain_id} for chain_id in sorted(set(packed))])
    node = {bytes(row["chain_id"]): row["id"] for row in await session.all(_NODES, {"chain": list(set(packed))})}
    rows = [
        {"manifest_id": manifest_id, "depth": depth, "node_id": node[chain_id], "whole": int(depth == len(packed))}
        for depth, chain_id in enumerate(packed, start=1)
    ]
    await session.run_many(_ADD_LAYER, rows)


async def ancestors(db: Database, repository: str, digest: Digest) -> list[Kin]:
    """What this image was built on, nearest first, in any repository."""
    return await _kin_of(db, _ANCESTORS, repository, digest)


async def descendants(db: Database, repository: str, digest: Digest) -> list[Kin]:
    """What was built on this image, in any repository."""
    return await _kin_of(db, _DESCENDANTS, repository, digest)


async def _kin_of(db: Database, statement: sa.Select[Any], repository: str, digest: Digest) -> list[Kin]:
    rows = await db.all(statement, {"repository": repository, "digest": digest.packed})
    return [Kin(row["repository"], Digest.unpack(row["digest"]), row["depth"]) for row in rows]
