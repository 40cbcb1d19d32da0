"""What every handler of the data plane works with."""

from dataclasses import dataclass

from tenure.registry.settings import PullSettings, PushSettings
from tenure.storage.blobs.driver import BlobDriver
from tenure.storage.meta.database import Database
from tenure.storage.room import Room


@dataclass(frozen=True, slots=True)
class Plane:
    """The two stores and the settings. `trash` is how long deleted things stay restorable, microseconds.

    `room` is that on the disks of this machine that uploads fill; None where they fill none.
    """

    db: Database
    driver: BlobDriver
    push: PushSettings
    pull: PullSettings
    trash: int
    room: Room | None = None
