"""The job that a push leaves behind when an image's config was not at hand: index its layers' chain."""

from tenure.core.chain import MAX_CONFIG, chain_ids
from tenure.gc.worker import Task
from tenure.storage.meta.database import ConstraintRefused, Session
from tenure.storage.meta.lineage import index_chain
from tenure.storage.meta.overview import config_object

KIND = "lineage.index"


async def index_job(task: Task) -> None:
    """Payload: `manifest_id`. Done where the manifest or its config is gone, or is no image's."""
    manifest_id = int(task.job.payload["manifest_id"])
    config = await config_object(task.db, manifest_id)
    if config is None or config[1] > MAX_CONFIG:
        return
    key, size = config
    content = b"".join([piece async for piece in task.driver.read(key, 0, size)])
    chain = chain_ids(content)

    async def work(session: Session) -> None:
        await index_chain(session, manifest_id, chain)

    try:
        await task.db.transact(work)
    except ConstraintRefused:
        # The manifest was purged between the two looks; if it was anything else, say so.
        if await config_object(task.db, manifest_id) is not None:
            raise
