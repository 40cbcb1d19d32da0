"""Tags of a repository (distribution-spec, "Listing tags")."""

import msgspec

from tenure.registry.http import Answer, Request
from tenure.registry.listing import one_page, tagged_answer
from tenure.registry.plane import Plane
from tenure.storage.meta.tags import list_tags


async def get_tags(plane: Plane, request: Request) -> Answer:
    """200 with the names in byte order, 304, or 404 NAME_UNKNOWN."""
    names, headers = await one_page(request, lambda page: list_tags(plane.db, request.name, page))
    return tagged_answer(request, msgspec.json.encode({"name": request.name, "tags": names}), headers)
