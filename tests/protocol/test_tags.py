"""Listing tags: order, pages, pollers."""

import json
import re

import pytest

from helpers.images import Made
from helpers.oci import put_image, put_manifest, refusal
from helpers.wire import Heard, exchange

ORDERED = ["0", "10", "9", "A", "Z", "_x", "a", "a-b", "a.b", "a_b", "latest", "v1", "v10", "v2"]


def names(answer: Heard) -> list[str]:
    assert answer.status == 200
    assert answer["Content-Type"] == "application/json"
    found: list[str] = json.loads(answer.body)["tags"]
    return found


def next_page(answer: Heard) -> str | None:
    link = answer.headers.get("link")
    if link is None:
        return None
    match = re.fullmatch(r'<(/v2/[^>]+)>; rel="next"', link)
    assert match, link
    return match[1]


async def tagged(base: str, name: str, tags: list[str]) -> Made:
    made = await put_image(base, name, tags[0])
    for tag in tags[1:]:
        assert (await put_manifest(base, name, tag, made)).status == 201
    return made


async def test_expectation_17_tags_come_in_byte_order_and_pages_lead_on(base: str) -> None:
    await tagged(base, "deep/team/app", ORDERED[::-1])
    target = "/v2/deep/team/app/tags/list"
    whole = await exchange(base, "GET", target)
    assert json.loads(whole.body) == {"name": "deep/team/app", "tags": ORDERED}
    assert next_page(whole) is None
    collected: list[str] = []
    page: str | None = f"{target}?n=4"
    while page is not None:
        answer = await exchange(base, "GET", page)
        assert 0 < len(names(answer)) <= 4
        collected += names(answer)
        page = next_page(answer)
    assert collected == ORDERED


@pytest.mark.parametrize(
    ("query", "wanted", "link"),
    [
        ("?n=0", [], None),
        ("?n=0&last=a", [], None),
        ("?n=14", ORDERED, None),
        ("?n=13", ORDERED[:13], "/v2/app/tags/list?n=13&last=v10"),
        ("?n=100000", ORDERED, None),
        ("?n=2&last=a", ["a-b", "a.b"], "/v2/app/tags/list?n=2&last=a.b"),
        ("?last=v2", [], None),
        ("?last=nothing-like-it", ["v1", "v10", "v2"], None),
        ("?last=zzz", [], None),
        ("?n=1&last=%F0%9F%90%B3", [], None),
        ("?unknown=1&ns=docker.io", ORDERED, None),
        ("?n=3&n=5", ORDERED[:3], "/v2/app/tags/list?n=3&last=9"),
    ],
)
async def test_expectation_17_n_and_last(base: str, query: str, wanted: list[str], link: str | None) -> None:
    await tagged(base, "app", ORDERED)
    answer = await exchange(base, "GET", f"/v2/app/tags/list{query}")
    assert (names(answer), next_page(answer)) == (wanted, link)


async def test_expectation_17_an_n_above_the_limit_is_clamped_and_leads_on(
    small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenure.core.page.MAX_PAGE", 5)
    await tagged(small, "app", ORDERED)
    for query in ("?n=10000", ""):
        answer = await exchange(small, "GET", f"/v2/app/tags/list{query}")
        assert (names(answer), next_page(answer)) == (ORDERED[:5], "/v2/app/tags/list?n=5&last=Z")


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "%31x", "", "9" * 30, "%00", "%D9%A3"])
async def test_an_n_that_is_no_number_is_400(small: str, n: str) -> None:
    await put_image(small, "app", "v1")
    status, code = refusal(await exchange(small, "GET", f"/v2/app/tags/list?n={n}"))
    assert status == 400
    assert code in ("PAGINATION_NUMBER_INVALID", "UNSUPPORTED")


async def test_an_unknown_repository_is_404(base: str) -> None:
    for query in ("", "?n=0"):
        assert refusal(await exchange(base, "GET", f"/v2/no/such/tags/list{query}")) == (404, "NAME_UNKNOWN")


async def test_a_repository_without_tags_has_an_empty_list(base: str) -> None:
    await put_image(base, "app", "v1")
    assert (await exchange(base, "DELETE", "/v2/app/manifests/v1")).status == 202
    assert names(await exchange(base, "GET", "/v2/app/tags/list")) == []


async def test_a_poller_hears_304_until_something_changes(base: str) -> None:
    made = await tagged(base, "app", ["v1", "v2"])
    first = await exchange(base, "GET", "/v2/app/tags/list?n=2")
    known = [("If-None-Match", first["ETag"])]
    second = await exchange(base, "GET", "/v2/app/tags/list?n=2", known)
    assert (second.status, second["ETag"]) == (304, first["ETag"])
    await put_manifest(base, "app", "v3", made)
    # The same names on the page, but now a page follows.
    assert names(await exchange(base, "GET", "/v2/app/tags/list?n=2", known)) == ["v1", "v2"]


async def test_an_accept_header_never_matters(small: str) -> None:
    await put_image(small, "app", "v1")
    assert names(await exchange(small, "GET", "/v2/app/tags/list", [("Accept", "text/html")])) == ["v1"]
