"""What every handler of the data plane works with."""

from dataclasses import dataclass

from tenure.registry.settings import PullSettings, PushSettings
from tenure.storage.blobs.driver import BlobDriver
from tenure.storage.meta.database import Database


@dataclass(frozen=True, slots=True)
class Plane:
    """The two stores and the settings. `trash` is how long deleted things stay restorable, microseconds."""

    db: Database
    driver: BlobDriver
    push: PushSettings
    pull: PullSettings
    trash: int
