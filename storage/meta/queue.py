"""What the collector should look at again. Every enqueue raises `seq`, so a look that began before it
cannot take the row away (a decision made on old facts is looked at twice, never lost)."""

from collections.abc import Iterable
from enum import IntEnum

from tenure.storage.meta.database import Session
from tenure.storage.meta.records import gc_queue
from tenure.storage.meta.statements import insert

_new = insert(gc_queue)
_ENQUEUE = _new.on_conflict_do_update(
    index_elements=["kind", "repo_id", "target_id"],
    set_={"seq": gc_queue.c.seq + 1, "due_at": _new.excluded.due_at, "attempts": 0},
)


class QueueKind(IntEnum):
    MANIFEST = 1
    LINK = 2
    BLOB = 3


async def enqueue_review(session: Session, kind: QueueKind, repo_id: int, targets: Iterable[int], due_at: int) -> None:
    """Have `targets` (manifest or blob ids) looked at, not before `due_at`. Blobs have no repository: 0."""
    rows = [
        {"kind": int(kind), "repo_id": repo_id, "target_id": target, "due_at": due_at}
        for target in sorted(set(targets))
    ]
    if rows:
        await session.run_many(_ENQUEUE, rows)
