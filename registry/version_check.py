"""`GET /v2/`: is this a registry, and may I come in (distribution-spec, "Determining support")."""

from tenure.registry.http import Answer, Request
from tenure.registry.plane import Plane

_ANSWER = Answer(200, {"Content-Type": "application/json"}, b"{}")


async def get_base(plane: Plane, request: Request) -> Answer:
    """Always 200: whoever may not come in was stopped before."""
    return _ANSWER
