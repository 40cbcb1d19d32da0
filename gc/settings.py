"""Settings of background work and of the trash: section `[gc]`."""

import msgspec

from tenure.storage.settings import Duration, duration


class GcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[gc]`"""

    #: how long what a person deletes stays in trash, where a push of it finds it, before its bytes may go
    trash: Duration = duration("7d")
    #: jobs one process works on at once
    jobs: int = 4
    #: how long a job belongs to the process that took it; renewed while it works, so only a dead one loses it
    lease: Duration = duration("60s")
    #: how often a process looks for due jobs when nothing wakes it
    poll: Duration = duration("5s")
    #: how often condemned bytes are removed, and abandoned uploads and expired keys looked for
    sweep: Duration = duration("30s")
    #: objects removed in one round
    delete_batch: int = 200
    #: how many of them at once
    delete_parallel: int = 8
    #: how long the removal of one object may take before another process may try it too
    delete_claim: Duration = duration("10m")
