"""The grammar of paths: names hold slashes and keywords, so the last keyword decides."""

import pytest

from tenure.auth.access import ACTIONS
from tenure.core.errors import NameInvalid, NotFound, Unsupported
from tenure.registry.routes import (
    BASE,
    BLOB,
    CATALOG,
    MANIFEST,
    REFERRERS,
    ROUTES,
    TAGS,
    UPLOAD,
    UPLOADS,
    find_route,
    is_ours,
)

HEX = "0" * 64


@pytest.mark.parametrize(
    ("method", "path", "pattern", "name", "params"),
    [
        ("GET", "/v2", BASE, "", {}),
        ("GET", "/v2/", BASE, "", {}),
        ("GET", "/v2/_catalog", CATALOG, "", {}),
        ("GET", "/v2/a/tags/list", TAGS, "a", {}),
        ("GET", "/v2/a/b/c/d/tags/list", TAGS, "a/b/c/d", {}),
        ("GET", "/v2/tags/list/tags/list", TAGS, "tags/list", {}),
        ("GET", "/v2/a/manifests/latest", MANIFEST, "a", {"reference": "latest"}),
        ("GET", "/v2/a/manifests/list", MANIFEST, "a", {"reference": "list"}),
        ("GET", "/v2/a/tags/manifests/list", MANIFEST, "a/tags", {"reference": "list"}),
        ("GET", "/v2/a/manifests/tags/list", TAGS, "a/manifests", {}),
        ("GET", "/v2/a/manifests/manifests/v1", MANIFEST, "a/manifests", {"reference": "v1"}),
        ("GET", "/v2/manifests/manifests/manifests", MANIFEST, "manifests", {"reference": "manifests"}),
        ("GET", "/v2/blobs/uploads/manifests/v1", MANIFEST, "blobs/uploads", {"reference": "v1"}),
        ("GET", f"/v2/a/manifests/sha256%3A{HEX}", MANIFEST, "a", {"reference": f"sha256:{HEX}"}),
        ("GET", f"/v2/a/blobs/sha256:{HEX}", BLOB, "a", {"digest": f"sha256:{HEX}"}),
        ("GET", f"/v2/a/blobs/blobs/sha256:{HEX}", BLOB, "a/blobs", {"digest": f"sha256:{HEX}"}),
        ("GET", f"/v2/a/referrers/sha256:{HEX}", REFERRERS, "a", {"digest": f"sha256:{HEX}"}),
        ("POST", "/v2/a/blobs/uploads/", UPLOADS, "a", {}),
        ("POST", "/v2/a/blobs/uploads", UPLOADS, "a", {}),
        ("POST", "/v2/a/blobs/uploads/blobs/uploads/", UPLOADS, "a/blobs/uploads", {}),
        ("PATCH", "/v2/a/b/blobs/uploads/x-_1", UPLOAD, "a/b", {"session": "x-_1"}),
        ("PUT", "/v2/a/blobs/uploads/uploads", UPLOAD, "a", {"session": "uploads"}),
    ],
)
def test_a_path_is_read_from_its_end(method: str, path: str, pattern: str, name: str, params: dict[str, str]) -> None:
    found = find_route(method, path)
    assert (found.route.pattern, found.name, dict(found.params)) == (pattern, name, params)


@pytest.mark.parametrize(
    "path", ["/v2/a", "/v2/a/b", "/v2/tags/list", "/v2/manifests/v1", "/v2/blobs/uploads/", "/v2/%61/tags/list"]
)
def test_a_path_needs_a_name_and_a_form(path: str) -> None:
    with pytest.raises((NotFound, NameInvalid)):
        find_route("POST" if path.endswith("uploads/") else "GET", path)


def test_a_name_is_never_decoded() -> None:
    with pytest.raises(NameInvalid, match="percent"):
        find_route("GET", "/v2/team%2Fapp/manifests/v1")


def test_a_method_that_a_path_does_not_have_names_those_it_has() -> None:
    with pytest.raises(Unsupported) as refused:
        find_route("POST", "/v2/a/tags/list")
    assert refused.value.headers == {"Allow": "GET, HEAD"}


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/v2", True),
        ("/v2/", True),
        ("/v2/a", True),
        ("/v2x", False),
        ("/v1/", False),
        ("/", False),
        ("/api/v2/", False),
    ],
)
def test_only_v2_is_ours(path: str, ours: bool) -> None:
    assert is_ours(path) is ours


def test_every_route_is_complete() -> None:
    assert len({(route.method, route.pattern) for route in ROUTES}) == len(ROUTES)
    for route in ROUTES:
        assert route.action in ACTIONS
        assert route.label
        # What changes something never passes with the right to read.
        assert route.method in ("GET", "HEAD") or route.action in ("push", "delete")
