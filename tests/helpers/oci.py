"""What a client does to get an image in, over HTTP, and the shape of refusals."""

import json

from helpers.images import Made, descriptor
from helpers.wire import Headers, Heard, exchange
from tenure.core import media
from tenure.core.digest import Digest


async def put_blob(base: str, name: str, content: bytes) -> Digest:
    """POST with everything."""
    digest = Digest.of(content)
    answer = await exchange(base, "POST", f"/v2/{name}/blobs/uploads/?digest={digest}", sent=content)
    assert answer.status == 201, answer
    return digest


async def put_manifest(base: str, name: str, reference: str, made: Made, headers: Headers = ()) -> Heard:
    """PUT; `reference` may carry a query."""
    types = [("Content-Type", made.media_type)]
    return await exchange(base, "PUT", f"/v2/{name}/manifests/{reference}", [*types, *headers], sent=made.payload)


async def put_image(base: str, name: str, tag: str, *, seed: str = "a") -> Made:
    """An image of one layer with its blobs; each seed makes another one."""
    config = json.dumps({"seed": seed, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'1' * 64}"]}}).encode()
    layer = f"layer {seed}".encode()
    for content in (config, layer):
        await put_blob(base, name, content)
    body = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(config, media.OCI_CONFIG),
        "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    # Spaces and an order that no writer of JSON would make again: what comes back must be these bytes.
    payload = json.dumps(body, indent=3).encode() + b"\n"
    made = Made(payload, Digest.of(payload), media.OCI_MANIFEST)
    answer = await put_manifest(base, name, tag, made)
    assert answer.status == 201, answer
    return made


def refusal(answer: Heard) -> tuple[int, str]:
    """Status and code of an error in the registry's form, which must hold a sentence."""
    assert answer["Content-Type"] == "application/json"
    errors = json.loads(answer.body)["errors"]
    assert " " in errors[0]["message"], errors
    return answer.status, errors[0]["code"]
