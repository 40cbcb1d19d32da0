"""Removes condemned bytes: claim, delete, see that they are gone, close the row.

DELETING is irrevocable and its keys are never used twice, so a delete that is sent twice or arrives late hits
nothing that lives. Each object is apart from the others: one that cannot be removed is tried again later and
later and holds nobody up. No transaction is open while the store is asked.
"""

import asyncio
from collections.abc import Sequence

import structlog

from tenure.core.clock import SECOND
from tenure.core.errors import TenureError
from tenure.gc.worker import Task
from tenure.storage.blobs.driver import BlobDriver
from tenure.storage.meta.database import Database
from tenure.storage.meta.garbage import Condemned, claim_condemned, close_condemned, postpone_condemned

KIND = "objects.delete"

_log = structlog.get_logger("tenure.gc.deleter")


async def delete_job(task: Task) -> int:
    """The recurring job: rounds until nothing is due, then again after `gc.sweep`."""
    settings = task.settings
    while await delete_round(
        task.db,
        task.driver,
        limit=settings.delete_batch,
        parallel=settings.delete_parallel,
        claim_for=settings.delete_claim,
    ):
        pass
    return await task.due_in(settings.sweep)


async def delete_round(db: Database, driver: BlobDriver, *, limit: int, parallel: int, claim_for: int) -> int:
    """Try every condemned object that is due, `limit` at most; how many were tried.

    `claim_for` microseconds is how long others leave a claimed object alone; an object whose removal takes
    longer is given up for this time.
    """
    condemned = await claim_condemned(db, limit=limit, claim_for=claim_for)
    if not condemned:
        return 0
    places = asyncio.Semaphore(parallel)

    async def one(item: Condemned) -> str | None:
        async with places:
            return await _remove(driver, item, claim_for / SECOND)

    errors = await asyncio.gather(*(one(item) for item in condemned))
    gone = [item for item, error in zip(condemned, errors, strict=True) if error is None]
    await close_condemned(db, [item.id for item in gone])
    await _postpone(db, [(item, error) for item, error in zip(condemned, errors, strict=True) if error is not None])
    _log.info("removed condemned bytes", objects=len(gone), size=sum(item.size or 0 for item in gone))
    return len(condemned)


async def _remove(driver: BlobDriver, item: Condemned, within: float) -> str | None:
    """None when everything under the key is verified as absent, else why not."""
    try:
        async with asyncio.timeout(within):
            await driver.delete(item.key, item.multipart_id, item.version_id)
            left = await driver.stat(item.key)
    except TimeoutError:
        return f"the store did not answer within {within:.0f} s"
    except TenureError as error:
        return error.message
    # Outermost loop of one object: whatever is wrong with it must not keep the others.
    except Exception as error:
        _log.exception("cannot remove an object", key=item.key)
        return f"{type(error).__name__}: {error}"
    return None if left is None else f"the store still has {left.size} bytes under this key after the delete"


async def _postpone(db: Database, failed: Sequence[tuple[Condemned, str]]) -> None:
    for item, error in failed:
        _log.warning("cannot remove an object", key=item.key, attempt=item.attempts, error=error)
        await postpone_condemned(db, item, error)
