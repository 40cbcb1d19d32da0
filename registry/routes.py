"""The table of the data plane, and the grammar of its paths (distribution-spec, "Endpoints").

A repository name may hold slashes and any of the keywords, so a path is read from its end: the last keyword
decides. The path is taken as it came over the wire. Nothing in a name is ever decoded; the last segment
(digest, tag, session) is, once, because some clients write `sha256%3A...`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from tenure.core.errors import NameInvalid, NotFound, TenureError, Unsupported
from tenure.core.names import check_repository
from tenure.registry.blobs import delete_blob, get_blob, head_blob
from tenure.registry.catalog import list_catalog
from tenure.registry.http import Request, Result
from tenure.registry.manifests import delete_reference, get_manifest, head_manifest, put_manifest
from tenure.registry.plane import Plane
from tenure.registry.referrers import get_referrers
from tenure.registry.tags import get_tags
from tenure.registry.uploads import cancel_upload, finish_upload, patch_upload, start_upload, upload_status
from tenure.registry.version_check import get_base

Handler = Callable[[Plane, Request], Awaitable[Result]]

BASE = "/v2/"
CATALOG = "/v2/_catalog"
TAGS = "/v2/<name>/tags/list"
MANIFEST = "/v2/<name>/manifests/<reference>"
REFERRERS = "/v2/<name>/referrers/<digest>"
BLOB = "/v2/<name>/blobs/<digest>"
UPLOADS = "/v2/<name>/blobs/uploads/"
UPLOAD = "/v2/<name>/blobs/uploads/<session>"


@dataclass(frozen=True, slots=True)
class Route:
    """`action` is the right that is asked for (auth/access.py), `label` the route's name in metrics."""

    method: str
    pattern: str
    handler: Handler
    action: str
    label: str
    #: always gives an Answer, and asks for no body: a connection may answer it directly
    small: bool = False


# HEAD without a handler of its own is answered by GET's: the server keeps the body back.
ROUTES: tuple[Route, ...] = (
    Route("GET", BASE, get_base, "pull", "base", small=True),
    Route("HEAD", BASE, get_base, "pull", "base", small=True),
    Route("GET", CATALOG, list_catalog, "pull", "catalog", small=True),
    Route("HEAD", CATALOG, list_catalog, "pull", "catalog", small=True),
    Route("GET", TAGS, get_tags, "pull", "tags", small=True),
    Route("HEAD", TAGS, get_tags, "pull", "tags", small=True),
    Route("GET", MANIFEST, get_manifest, "pull", "manifest", small=True),
    Route("HEAD", MANIFEST, head_manifest, "pull", "manifest", small=True),
    Route("PUT", MANIFEST, put_manifest, "push", "manifest"),
    Route("DELETE", MANIFEST, delete_reference, "delete", "manifest"),
    Route("GET", REFERRERS, get_referrers, "pull", "referrers", small=True),
    Route("HEAD", REFERRERS, get_referrers, "pull", "referrers", small=True),
    Route("GET", BLOB, get_blob, "pull", "blob"),
    Route("HEAD", BLOB, head_blob, "pull", "blob", small=True),
    Route("DELETE", BLOB, delete_blob, "delete", "blob"),
    Route("POST", UPLOADS, start_upload, "push", "uploads"),
    Route("GET", UPLOAD, upload_status, "push", "upload"),
    Route("HEAD", UPLOAD, upload_status, "push", "upload"),
    Route("PATCH", UPLOAD, patch_upload, "push", "upload"),
    Route("PUT", UPLOAD, finish_upload, "push", "upload"),
    Route("DELETE", UPLOAD, cancel_upload, "push", "upload"),
)

_BY_PATTERN: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    _BY_PATTERN.setdefault(_route.pattern, {})[_route.method] = _route

#: the keyword before the last segment -> the pattern, and what the last segment is
_KEYWORDS = {
    "manifests": (MANIFEST, "reference"),
    "blobs": (BLOB, "digest"),
    "referrers": (REFERRERS, "digest"),
}
#: longer targets are not kept by `small_route`: what it holds stays within 8 MiB
_KEPT_TARGET = 1024
_NOTHING: Mapping[str, str] = {}


class Match(NamedTuple):
    """A route and what stood in the path; `name` is "" where the pattern has none."""

    route: Route
    name: str
    params: Mapping[str, str]


def is_ours(path: str) -> bool:
    """Whether a raw path belongs to the data plane and not to the application beside it."""
    return path.startswith("/v2/") or path == "/v2"


def find_route(method: str, path: str) -> Match:
    """The route for a raw path without its query.

    NotFound for a path of no known form, Unsupported (with Allow) for a method that its form does not have,
    NameInvalid for a name outside the grammar; in this order.
    """
    pattern, name, params = _read(path)
    methods = _BY_PATTERN[pattern]
    route = methods.get(method)
    if route is None:
        raise Unsupported(f"{method} is not supported on {pattern}", headers={"Allow": ", ".join(methods)})
    _check_name(pattern, name)
    return Match(route, name, params)


def small_route(method: str, target: str) -> Match | None:
    """The route for a path and query, if it is one whose answers are small; None for all else, mistakes included."""
    place = _kept_place(target) if len(target) <= _KEPT_TARGET and target.isascii() else None
    if place is None:
        return None
    pattern, name, params = place
    route = _BY_PATTERN[pattern].get(method)
    return Match(route, name, params) if route is not None and route.small else None


# Kept: the same few addresses are asked for again and again.
@lru_cache(maxsize=4096)
def _kept_place(target: str) -> tuple[str, str, Mapping[str, str]] | None:
    path = target.partition("?")[0]
    if not is_ours(path):
        return None
    try:
        pattern, name, params = _read(path)
        _check_name(pattern, name)
        return pattern, name, params
    except TenureError:
        return None


def _read(path: str) -> tuple[str, str, Mapping[str, str]]:
    rest = path[4:]
    if not rest:
        return BASE, "", _NOTHING
    if rest == "_catalog":
        return CATALOG, "", _NOTHING
    head, _, last = rest.rpartition("/")
    name, _, keyword = head.rpartition("/")
    found = _KEYWORDS.get(keyword)
    if found is not None and last and not (keyword == "blobs" and last == "uploads"):
        pattern, param = found
        return pattern, name, {param: _decoded(last)}
    if keyword == "tags" and last == "list":
        return TAGS, name, _NOTHING
    if keyword == "blobs" and last == "uploads":
        return UPLOADS, name, _NOTHING
    if keyword == "uploads" and name.endswith("/blobs"):
        name = name[: -len("/blobs")]
        return (UPLOAD, name, {"session": _decoded(last)}) if last else (UPLOADS, name, _NOTHING)
    raise NotFound("there is no such address in the registry API; see the OCI distribution spec, Endpoints")


def _decoded(segment: str) -> str:
    return unquote(segment, errors="replace") if "%" in segment else segment


def _check_name(pattern: str, name: str) -> None:
    if pattern in (BASE, CATALOG):
        return
    if "%" in name:
        raise NameInvalid("a repository name is written as it is, without percent-encoding", detail={"name": name})
    check_repository(name)
