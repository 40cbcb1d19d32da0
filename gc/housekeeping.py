"""What runs out by itself: upload sessions nobody came back to, and remembered answers."""

from tenure.gc.worker import Task
from tenure.storage.meta.garbage import reap_orphans, reap_uploads
from tenure.storage.meta.idempotency import forget_expired_keys

UPLOADS, KEYS = "uploads.expire", "idempotency.expire"

_BATCH = 100


async def expire_uploads(task: Task) -> int:
    """The upload reaper: ends sessions past their deadline and condemns what they wrote."""
    while await reap_uploads(task.db, limit=_BATCH):
        pass
    while await reap_orphans(task.db, limit=_BATCH):
        pass
    return await task.due_in(task.settings.sweep)


async def expire_keys(task: Task) -> int:
    """Forgets the answers of requests whose Idempotency-Key has run out."""
    while await forget_expired_keys(task.db, limit=_BATCH):
        pass
    return await task.due_in(task.settings.sweep)
