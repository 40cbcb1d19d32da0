"""The image that every registry is given, pushed and read back the way a client does it."""

import hashlib
import http.client
import json
from dataclasses import dataclass

REPOSITORY = "bench/small"
TAG = "latest"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Image:
    """A pushed image: the paths that are asked for, and the bytes of the manifest."""

    manifest_path: str
    blob_path: str
    manifest: bytes


class PushRefused(Exception):
    """A registry did not take or give back what the run needs."""


def push_image(address: str) -> Image:
    """Pushes a small image with ten layers' worth of descriptors, checks that it reads back byte for byte."""
    layers = [hashlib.sha256(f"layer {number}".encode()).digest() * 1024 for number in range(10)]
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    digests = [push_blob(address, REPOSITORY, data) for data in [config, *layers]]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor("application/vnd.oci.image.config.v1+json", digests[0], config),
            "layers": [
                _descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest, data)
                for digest, data in zip(digests[1:], layers, strict=True)
            ],
        }
    ).encode()
    path = f"/v2/{REPOSITORY}/manifests/{TAG}"
    _call(address, "PUT", path, 201, manifest, {"Content-Type": MANIFEST_TYPE})
    image = Image(path, f"/v2/{REPOSITORY}/blobs/{digests[1]}", manifest)
    if _call(address, "GET", path, 200, headers={"Accept": MANIFEST_TYPE})[1] != manifest:
        raise PushRefused(f"{address} gives other bytes than it was given")
    _call(address, "HEAD", image.blob_path, 200)
    return image


def push_blob(address: str, repository: str, data: bytes) -> str:
    """Pushes one blob by POST and PUT and returns its digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    started, _ = _call(address, "POST", f"/v2/{repository}/blobs/uploads/", 202)
    location = started["Location"].removeprefix(f"http://{address}")
    where = f"{location}{'&' if '?' in location else '?'}digest={digest}"
    _call(address, "PUT", where, 201, data, {"Content-Type": "application/octet-stream"})
    return digest


def pull_blob(address: str, repository: str, digest: str, size: int) -> None:
    """Reads one blob to its end and counts its bytes."""
    connection = http.client.HTTPConnection(address, timeout=300)
    try:
        connection.request("GET", f"/v2/{repository}/blobs/{digest}")
        answer = connection.getresponse()
        seen, buffer = 0, bytearray(1 << 20)
        while count := answer.readinto(buffer):
            seen += count
        if answer.status != 200 or seen != size:
            raise PushRefused(f"GET of {digest} at {address}: status {answer.status}, {seen} of {size} bytes")
    finally:
        connection.close()


def _descriptor(media_type: str, digest: str, data: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _call(
    address: str, method: str, path: str, wanted: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(address, timeout=300)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != wanted:
            raise PushRefused(f"{method} {path} at {address}: {answer.status} {data[:500]!r}, wanted {wanted}")
        return answer.headers, data
    finally:
        connection.close()
