"""Refusals as problem details (RFC 9457)."""

import msgspec
from aiohttp import web

from tenure.api.schemas import Problem
from tenure.core.errors import TenureError

MEDIA_TYPE = "application/problem+json"


def problem(error: TenureError, path: str, request_id: str) -> web.Response:
    """The answer to a refused request; `api_status` stands before `status` where an error has both."""
    status = error.api_status or error.status
    body = Problem(
        type=f"urn:tenure:problem:{error.code.lower()}",
        title=(type(error).__doc__ or "").strip().partition("\n")[0],
        status=status,
        code=error.code,
        detail=error.message,
        reasons=list(error.reasons),
        instance=path[:1000],
        request_id=request_id,
    )
    headers = {"Cache-Control": "no-store", **error.headers}
    if request_id:
        headers["X-Request-Id"] = request_id
    return web.Response(status=status, body=msgspec.json.encode(body), headers={**headers, "Content-Type": MEDIA_TYPE})
