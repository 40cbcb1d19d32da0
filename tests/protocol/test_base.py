"""`/v2/`, and addresses that lead nowhere."""

import pytest

from helpers.oci import refusal
from helpers.wire import exchange

ZERO = f"sha256:{'0' * 64}"


@pytest.mark.parametrize("target", ["/v2/", "/v2", "/v2/?ns=docker.io", "/v2?x="])
async def test_the_base_answers_with_and_without_a_slash(base: str, target: str) -> None:
    for method in ("GET", "HEAD"):
        answer = await exchange(base, method, target)
        assert (answer.status, answer["Docker-Distribution-Api-Version"]) == (200, "registry/2.0")
        assert "x-registry-supports-signatures" not in answer.headers


@pytest.mark.parametrize(
    "target",
    [
        "/", "/v1/search", "/v2/a", "/v2/a/", "/v2/a/b/c", "/v2/a/tags", "/v2/a/tags/", "/v2/a/tags/list/", "/v2/_cat",
        "/v2/a/manifests/", "/v2/a/manifests", "/v2/a/blobs/", "/v2/a/blobs", "/v2/a/uploads/x", "/v2/a/referrers/",
        "/v2/manifests/x/y", "/v2/_catalog/", "/v2//", "/v2/a/blobs/uploads/x/y",
    ],
)  # fmt: skip
async def test_other_addresses_are_404_in_json(small: str, target: str) -> None:
    assert refusal(await exchange(small, "GET", target)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/v2/", "GET, HEAD"),
        ("DELETE", "/v2/_catalog", "GET, HEAD"),
        ("PUT", "/v2/a/tags/list", "GET, HEAD"),
        ("POST", "/v2/a/manifests/v1", "GET, HEAD, PUT, DELETE"),
        ("PATCH", f"/v2/a/manifests/{ZERO}", "GET, HEAD, PUT, DELETE"),
        ("PUT", f"/v2/a/blobs/{ZERO}", "GET, HEAD, DELETE"),
        ("POST", f"/v2/a/blobs/{ZERO}", "GET, HEAD, DELETE"),
        ("GET", "/v2/a/blobs/uploads/", "POST"),
        ("PUT", "/v2/a/blobs/uploads", "POST"),
        ("POST", "/v2/a/blobs/uploads/session", "GET, HEAD, PATCH, PUT, DELETE"),
        ("DELETE", f"/v2/a/referrers/{ZERO}", "GET, HEAD"),
        ("OPTIONS", "/v2/a/tags/list", "GET, HEAD"),
        ("BREW", "/v2/a/tags/list", "GET, HEAD"),
    ],
)
async def test_a_known_address_names_the_methods_it_has(small: str, method: str, target: str, allow: str) -> None:
    answer = await exchange(small, method, target)
    if method == "BREW":
        assert answer.status in (400, 405)  # the parser may refuse a method that HTTP does not know
        return
    assert refusal(answer) == (405, "UNSUPPORTED")
    assert answer["Allow"] == allow
