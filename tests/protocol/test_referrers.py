"""Listing referrers: descriptors with their annotations, filters, pages, subjects that nobody knows."""

import json
import re
from typing import Any

import pytest

from helpers.images import Made, descriptor, index, make
from helpers.oci import put_blob, put_image, put_manifest, refusal
from helpers.wire import Heard, exchange
from tenure.core import media

ZERO = f"sha256:{'0' * 64}"
SIGNATURE, SBOM = "application/vnd.example.signature+json", "application/vnd.example.sbom"


def entries(answer: Heard) -> list[dict[str, Any]]:
    assert (answer.status, answer["Content-Type"]) == (200, media.OCI_INDEX)
    found = json.loads(answer.body)
    assert (found["schemaVersion"], found["mediaType"]) == (2, media.OCI_INDEX)
    listed: list[dict[str, Any]] = found["manifests"]
    return listed


async def refer(
    base: str, name: str, subject: dict[str, Any], artifact_type: str | None = SIGNATURE, **annotations: str
) -> Made:
    await put_blob(base, name, b"{}")
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(b"{}", media.OCI_EMPTY),
        "layers": [],
        "subject": subject,
    }
    if artifact_type:
        body["artifactType"] = artifact_type
    if annotations:
        body["annotations"] = annotations
    made = make(body)
    answer = await put_manifest(base, name, str(made.digest), made)
    assert (answer.status, answer["OCI-Subject"]) == (201, subject["digest"])
    return made


def shown(made: Made, artifact_type: str, **annotations: str) -> dict[str, Any]:
    return {
        **made.descriptor(),
        "artifactType": artifact_type,
        **({"annotations": annotations} if annotations else {}),
    }


async def test_referrers_are_listed_with_type_size_and_all_annotations(base: str) -> None:
    subject = await put_image(base, "app", "v1")
    named = {"org.opencontainers.image.created": "2026-01-01", "a/b": "é \U0001f433 \"'\\", "empty": ""}
    one = await refer(base, "app", subject.descriptor(), **named)
    two = await refer(base, "app", subject.descriptor(), None)
    three = make({**json.loads(index([]).payload), "subject": subject.descriptor(), "artifactType": SBOM})
    assert (await put_manifest(base, "app", "sbom", three)).status == 201
    answer = await exchange(base, "GET", f"/v2/app/referrers/{subject.digest}")
    assert entries(answer) == [shown(one, SIGNATURE, **named), shown(two, media.OCI_EMPTY), shown(three, SBOM)]
    assert "oci-filters-applied" not in answer.headers
    assert "link" not in answer.headers


@pytest.mark.parametrize(
    "target", [f"/v2/app/referrers/{ZERO}", f"/v2/no/such/referrers/{ZERO}", f"/v2/app/referrers/sha512:{'0' * 128}"]
)
async def test_an_unknown_subject_has_an_empty_index(base: str, target: str) -> None:
    await put_image(base, "app", "v1")
    assert entries(await exchange(base, "GET", target)) == []
    filtered = await exchange(base, "GET", f"{target}?artifactType={SBOM}")
    assert (entries(filtered), filtered["OCI-Filters-Applied"]) == ([], "artifactType")


async def test_a_filter_is_applied_and_said_to_be(base: str) -> None:
    subject = await put_image(base, "app", "v1")
    signature = await refer(base, "app", subject.descriptor())
    await refer(base, "app", subject.descriptor(), SBOM)
    for written in (SIGNATURE, SIGNATURE.replace("+", "%2B").replace("/", "%2F")):
        answer = await exchange(base, "GET", f"/v2/app/referrers/{subject.digest}?artifactType={written}")
        assert entries(answer) == [shown(signature, SIGNATURE)]
        assert answer["OCI-Filters-Applied"] == "artifactType"
    unfiltered = await exchange(base, "GET", f"/v2/app/referrers/{subject.digest}?artifactType=&other=1")
    assert len(entries(unfiltered)) == 2
    assert "oci-filters-applied" not in unfiltered.headers


async def test_referrers_of_a_subject_that_comes_later_are_found(base: str) -> None:
    subject = index([], annotations={"comes": "later"})
    signature = await refer(base, "app", subject.descriptor())
    target = f"/v2/app/referrers/{subject.digest}"
    assert entries(await exchange(base, "GET", target)) == [shown(signature, SIGNATURE)]
    assert (await put_manifest(base, "app", "v1", subject)).status == 201
    assert entries(await exchange(base, "GET", target)) == [shown(signature, SIGNATURE)]
    assert (await exchange(base, "DELETE", f"/v2/app/manifests/{signature.digest}")).status == 202
    assert entries(await exchange(base, "GET", target)) == []


@pytest.mark.parametrize("filtered", [False, True])
async def test_an_answer_stays_below_4_mib_and_leads_on(base: str, filtered: bool) -> None:
    subject = index([])
    big = {"annotation": "x" * 900_000}
    made = [await refer(base, "app", subject.descriptor(), number=str(number), **big) for number in range(7)]
    if filtered:
        await refer(base, "app", subject.descriptor(), SBOM)
    query = "?artifactType=" + SIGNATURE.replace("+", "%2B") if filtered else ""
    target: str | None = f"/v2/app/referrers/{subject.digest}{query}"
    found: list[str] = []
    pages = 0
    while target is not None:
        answer = await exchange(base, "GET", target)
        assert len(answer.body) < 4 << 20
        assert (answer.headers.get("oci-filters-applied") == "artifactType") is filtered
        found += [entry["digest"] for entry in entries(answer)]
        link = re.fullmatch(r'<(/v2/[^>]+)>; rel="next"', answer.headers.get("link", ""))
        target = link[1] if link else None
        pages += 1
    assert found == [str(one.digest) for one in made]
    assert pages == 2


async def test_more_referrers_than_are_fetched_at_once_come_in_one_answer(base: str) -> None:
    subject = index([])
    made = [await refer(base, "app", subject.descriptor(), number=str(number)) for number in range(40)]
    answer = await exchange(base, "GET", f"/v2/app/referrers/{subject.digest}")
    assert [entry["digest"] for entry in entries(answer)] == [str(one.digest) for one in made]


@pytest.mark.parametrize(
    ("reference", "status", "code"),
    [
        ("latest", 400, "DIGEST_INVALID"),
        ("sha256:abc", 400, "DIGEST_INVALID"),
        (f"md5:{'0' * 32}", 400, "DIGEST_INVALID"),
        (f"sha256:{'G' * 64}", 400, "DIGEST_INVALID"),
        (f"sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
        (f"{ZERO}?last=abc", 400, "PAGINATION_NUMBER_INVALID"),
        (f"{ZERO}?last=-1", 400, "PAGINATION_NUMBER_INVALID"),
    ],
)
async def test_a_malformed_request_is_400(small: str, reference: str, status: int, code: str) -> None:
    assert refusal(await exchange(small, "GET", f"/v2/app/referrers/{reference}")) == (status, code)


async def test_a_fallback_tag_is_a_tag_and_keeps_what_it_lists(base: str) -> None:
    """Clients of registries without this API push an index under `sha256-<hex>`; it works here as anywhere."""
    subject = await put_image(base, "app", "v1")
    signature = await put_image(base, "app", "x", seed="signature")
    tag = str(subject.digest).replace(":", "-")
    fallback = index([signature])
    assert (await put_manifest(base, "app", tag, fallback)).status == 201
    assert (await exchange(base, "GET", f"/v2/app/manifests/{tag}")).body == fallback.payload
    assert refusal(await exchange(base, "DELETE", f"/v2/app/manifests/{signature.digest}")) == (405, "DENIED")
