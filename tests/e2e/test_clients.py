"""The matrix: every row that applies to a client, on every registry. docs/clients.md is written out of it."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helpers.client import ARTIFACT, CHUNK, Client, Ref, Row
from helpers.client_place import PLACES, Places
from helpers.client_table import CELL
from helpers.clients import CLIENTS, SLOW
from helpers.docker_engine import Failed
from helpers.skopeo import INDEX, digest_of

pytestmark = pytest.mark.e2e

#: a version as helm wants one, and a tag for everybody
TAG = "1.0.0"
SIZE = 1 << 20
#: what a client may send when the layers are there already: a config, a manifest's worth
LITTLE = 2000

Check = Callable[[Any, Ref], None]


def cells() -> Iterator[Any]:
    """Every cell of the table that applies."""
    for client in CLIENTS:
        for row in Row:
            for place in PLACES:
                if not client.why_not(row, place):
                    marks = [pytest.mark.xdist_group(place.split()[0]), *([pytest.mark.slow] if client in SLOW else [])]
                    name = f"{client.name}-{row.name.lower()}-{place.replace(' ', '-')}"
                    yield pytest.param(client, row, place, id=name, marks=marks)


@pytest.mark.parametrize(("kind", "row", "where"), list(cells()))
def test_row(
    kind: type[Client],
    row: Row,
    where: str,
    places: Places,
    client: Callable[[type[Client]], Client],
    record_property: Callable[[str, object], None],
) -> None:
    record_property(CELL, (kind.name, row.value, where, ""))
    driven = client(kind)
    record_property(CELL, (kind.name, row.value, where, driven.version()))
    # Every cell has a repository of its own, so that none depends on another.
    CHECKS[row](driven, Ref(places.get(where), f"{kind.name}/{row.name.lower()}", TAG))


def test_every_row_applies_or_says_why_not() -> None:
    assert set(CHECKS) == set(Row)
    assert [(client.name, row) for client in CLIENTS for row, why in client.without.items() if not why] == []
    assert [row for row in Row if all(row in client.without for client in CLIENTS)] == []


def push(client: Client, ref: Ref) -> None:
    payload = os.urandom(SIZE)
    client.push(payload, ref)
    assert payload in ref.place.content(ref.repository, ref.tag)


def again(client: Client, ref: Ref) -> None:
    payload = os.urandom(SIZE)
    client.push(payload, ref)
    sent = ref.place.received()
    assert sent > SIZE
    client.push(payload, ref)
    assert ref.place.received() == sent
    assert payload in ref.place.content(ref.repository, ref.tag)


def pull_by_tag(client: Client, ref: Ref) -> None:
    payload = os.urandom(SIZE)
    client.push(payload, ref)
    assert payload in client.pull(ref)


def pull_by_digest(client: Client, ref: Ref) -> None:
    payload = os.urandom(SIZE)
    client.push(payload, ref)
    digest = digest_of(ref.place.manifest(ref.repository, ref.tag))
    assert payload in client.pull(ref.at(digest=digest))


def several_platforms(client: Client, ref: Ref) -> None:
    payloads = index(client, ref)
    body = json.loads(ref.place.manifest(ref.repository, ref.tag))
    assert sorted(child["platform"]["architecture"] for child in body["manifests"]) == sorted(payloads)
    for architecture, payload in payloads.items():
        got = client.pull(ref, architecture)
        assert payload in got
        assert not any(other in got for name, other in payloads.items() if name != architecture)


def mount(client: Client, ref: Ref) -> None:
    payload = os.urandom(SIZE)
    target = Ref(ref.place, f"{ref.repository}/deep/target", TAG)
    client.push(payload, ref)
    sent = ref.place.received()
    client.mount(payload, ref, target)
    assert ref.place.received() - sent < LITTLE
    assert payload in ref.place.content(target.repository, TAG)


def copy(client: Client, ref: Ref) -> None:
    target = Ref(ref.place, f"{ref.repository}/target", "copied")
    payloads = index(client, ref)
    client.copy(ref, target)
    body = ref.place.manifest(target.repository, target.tag)
    assert body == ref.place.manifest(ref.repository, ref.tag)
    children = json.loads(body)["manifests"]
    got = b"".join(ref.place.content(target.repository, child["digest"]) for child in children)
    assert all(payload in got for payload in payloads.values())


def tags(client: Client, ref: Ref) -> None:
    client.push(os.urandom(1000), ref)
    ref.place.tag(ref.repository, TAG, "b", "a", "v2.0")
    assert sorted(client.tags(ref)) == [TAG, "a", "b", "v2.0"]


def catalog(client: Client, ref: Ref) -> None:
    other = Ref(ref.place, f"{ref.repository}/below", TAG)
    for made in (ref, other):
        client.push(os.urandom(1000), made)
    assert {ref.repository, other.repository} <= set(client.catalog(ref.place))


def delete(client: Client, ref: Ref) -> None:
    payload = os.urandom(1000)
    client.push(payload, ref)
    client.delete(ref)
    assert not ref.place.holds(ref.repository, ref.tag)
    client.push(payload, ref)
    assert payload in ref.place.content(ref.repository, ref.tag)


def referrers(client: Client, ref: Ref) -> None:
    client.push(os.urandom(1000), ref)
    subject = digest_of(ref.place.manifest(ref.repository, ref.tag))
    note = os.urandom(1000)
    client.attach(note, ref)
    (found,) = ref.place.referrers(ref.repository, subject)
    assert found["artifactType"] == ARTIFACT
    assert note in ref.place.content(ref.repository, found["digest"])
    assert client.attached(ref) == [found["digest"]]


def chunks(client: Client, ref: Ref) -> None:
    payload = os.urandom(SIZE)
    before = ref.place.patches()
    client.push_chunks(payload, ref)
    assert ref.place.patches() - before >= SIZE // CHUNK
    assert payload in ref.place.content(ref.repository, ref.tag)


def versions(client: Any, ref: Ref) -> None:
    payloads = {version: os.urandom(1000) for version in ("1.9.0", "1.10.0", "2.0.0")}
    for version, payload in payloads.items():
        client.push(payload, ref.at(tag=version))
    assert payloads["1.10.0"] in client.newest(ref, "^1.0.0")
    assert payloads["2.0.0"] in client.newest(ref, ">=1.0.0")


def mirror(client: Any, ref: Ref) -> None:
    payload = os.urandom(SIZE)
    client.push(payload, ref)
    assert payload in client.mirrored(ref)


def sign(client: Any, ref: Ref) -> None:
    client.push(os.urandom(1000), ref)
    pinned = ref.at(digest=digest_of(ref.place.manifest(ref.repository, ref.tag)))
    with pytest.raises(Failed, match="no signatures found"):
        client.verify(pinned)
    client.sign(pinned)
    assert pinned.digest in client.verify(pinned)
    (found,) = ref.place.referrers(ref.repository, pinned.digest)
    assert "sigstore" in found["artifactType"]


def absent(client: Client, ref: Ref) -> None:
    with pytest.raises(Failed, match=r"(?i)not found|unknown|not known"):
        client.pull(ref)


def stranger(client: Client, ref: Ref) -> None:
    client.push(os.urandom(1000), ref)
    with pytest.raises(Failed, match=r"(?i)certificate|x509"):
        client.pull(ref.strange())


def index(client: Client, ref: Ref) -> dict[str, bytes]:
    """Pushes an index of two platforms; what is in each."""
    payloads = {architecture: os.urandom(SIZE) for architecture in ("amd64", "arm64")}
    client.push_index(payloads, ref)
    kind = json.loads(ref.place.manifest(ref.repository, ref.tag))["mediaType"]
    assert kind in (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
    return payloads


CHECKS: dict[Row, Check] = {
    Row.PUSH: push,
    Row.AGAIN: again,
    Row.TAG: pull_by_tag,
    Row.DIGEST: pull_by_digest,
    Row.INDEX: several_platforms,
    Row.MOUNT: mount,
    Row.COPY: copy,
    Row.TAGS: tags,
    Row.CATALOG: catalog,
    Row.DELETE: delete,
    Row.REFERRERS: referrers,
    Row.CHUNKS: chunks,
    Row.VERSIONS: versions,
    Row.MIRROR: mirror,
    Row.SIGN: sign,
    Row.ABSENT: absent,
    Row.STRANGER: stranger,
}


def test_a_place_is_not_trusted_without_its_authority(places: Places) -> None:
    """The TLS columns mean something: the certificate is not one that the machine trusts anyway."""
    place = places.get(PLACES[1])
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        place.strange().ask("/v2/")
