"""`_catalog`: what holds something, in order, in pages."""

import json

import pytest

from helpers.oci import put_blob, put_image, refusal
from helpers.wire import exchange

NAMES = ["a", "a/b", "a/b/c", "a-b", "b", "team/app"]


async def test_repositories_come_in_byte_order(base: str) -> None:
    for name in reversed(NAMES):
        await put_image(base, name, "v1")
    await put_blob(base, "only-a-blob", b"bytes")
    answer = await exchange(base, "GET", "/v2/_catalog")
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    assert json.loads(answer.body) == {"repositories": sorted(NAMES)}
    assert "link" not in answer.headers
    page = await exchange(base, "GET", "/v2/_catalog?n=2")
    assert json.loads(page.body)["repositories"] == sorted(NAMES)[:2]
    assert page["Link"] == '</v2/_catalog?n=2&last=a-b>; rel="next"'
    rest = await exchange(base, "GET", "/v2/_catalog?n=10&last=a-b")
    assert json.loads(rest.body)["repositories"] == sorted(NAMES)[2:]
    assert "link" not in rest.headers


@pytest.mark.parametrize("query", ["", "?n=5", "?n=0"])
async def test_an_empty_registry_has_an_empty_catalog(base: str, query: str) -> None:
    answer = await exchange(base, "GET", f"/v2/_catalog{query}")
    assert json.loads(answer.body) == {"repositories": []}
    assert "link" not in answer.headers


async def test_a_name_with_slashes_is_escaped_in_the_link(small: str) -> None:
    for name in ("a/b", "c"):
        await put_image(small, name, "v1")
    page = await exchange(small, "GET", "/v2/_catalog?n=1")
    assert page["Link"] == '</v2/_catalog?n=1&last=a%2Fb>; rel="next"'


async def test_a_repository_named_like_a_part_of_the_api_is_one_like_any_other(base: str) -> None:
    names = ["blobs", "blobs/uploads", "manifests", "manifests/latest", "tags/list", "x/referrers"]
    for name in names:
        made = await put_image(base, name, "v1", seed=name)
        assert (await exchange(base, "GET", f"/v2/{name}/manifests/v1")).body == made.payload
        listed = await exchange(base, "GET", f"/v2/{name}/tags/list")
        assert json.loads(listed.body) == {"name": name, "tags": ["v1"]}
    assert json.loads((await exchange(base, "GET", "/v2/_catalog")).body)["repositories"] == sorted(names)


async def test_an_n_that_is_no_number_is_400(small: str) -> None:
    assert refusal(await exchange(small, "GET", "/v2/_catalog?n=many")) == (400, "PAGINATION_NUMBER_INVALID")
