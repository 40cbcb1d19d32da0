"""`GET /v2/_catalog`: the repositories that hold something, paged like tags."""

import msgspec

from tenure.registry.http import Answer, Request
from tenure.registry.listing import one_page, tagged_answer
from tenure.registry.plane import Plane
from tenure.storage.meta.repositories import list_repositories


async def list_catalog(plane: Plane, request: Request) -> Answer:
    """200 with the names in byte order, or 304."""
    names, headers = await one_page(request, lambda page: list_repositories(plane.db, page))
    return tagged_answer(request, msgspec.json.encode({"repositories": names}), headers)
