"""What the admin API is given by the program that runs it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tenure.auth.access import Access
from tenure.core.origin import Origin
from tenure.storage.blobs.driver import BlobDriver
from tenure.storage.meta.database import Database


@dataclass(frozen=True, slots=True)
class AdminContext:
    """The stores, the access check and what the health addresses tell.

    `trash` is how long deleted things stay restorable, microseconds. `ready` answers with a dictionary whose
    `ready` says whether to send traffic here; `metrics` with a body and its content type, None where /metrics
    is not to be found.
    """

    db: Database
    driver: BlobDriver
    access: Access
    identify: Callable[[web.BaseRequest], Awaitable[Origin]]
    trash: int
    ready: Callable[[], dict[str, Any]]
    metrics: Callable[[], tuple[bytes, str]] | None
    #: on DELETE of a child of a live index: False refuses, True severs it from the index
    sever_children: bool = False
