"""Every kind of job there is, and who does it."""

from collections.abc import Mapping

from tenure.gc import deleter, housekeeping, lineage
from tenure.gc.worker import Duty

DUTIES: Mapping[str, Duty] = {
    duty.kind: duty
    for duty in (
        Duty(lineage.KIND, lineage.index_job),
        Duty(deleter.KIND, deleter.delete_job, recurring=True),
        Duty(housekeeping.UPLOADS, housekeeping.expire_uploads, recurring=True),
        Duty(housekeeping.KEYS, housekeeping.expire_keys, recurring=True),
    )
}
