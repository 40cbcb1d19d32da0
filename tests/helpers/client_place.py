"""The registries that clients are driven against: each profile over plain HTTP and over TLS with a CA of its own.

What a client reports is never believed alone: a `Place` reads the registry itself.
"""

import contextlib
import datetime
import gzip
import ipaddress
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from helpers.profiles import PROFILES, profile
from helpers.skopeo import INDEX, MANIFEST

SCHEMES = ("http", "https")
#: every registry of the matrix, by name
PLACES = tuple(f"{name} {scheme}" for name in PROFILES for scheme in SCHEMES)


@dataclass(frozen=True, slots=True)
class Place:
    """A registry at HOST:PORT. `ca` is the file of the authority a client is told to trust, None for none."""

    name: str
    address: str
    scheme: str
    ca: Path | None

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    def strange(self) -> "Place":
        """The same registry for a client that was not told of its authority."""
        return replace(self, ca=None)

    def ask(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> bytes:
        """The body of the answer. Raises HTTPError."""
        context = ssl.create_default_context(cafile=self.ca) if self.tls else None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            f"{self.scheme}://{self.address}{path}", data=body, method=method, headers=named
        )
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            content = answer.read()
        assert isinstance(content, bytes)
        return content

    def manifest(self, repository: str, reference: str) -> bytes:
        """The bytes as served. Raises HTTPError."""
        return self.ask(f"/v2/{repository}/manifests/{reference}", Accept=f"{MANIFEST}, {INDEX}, */*")

    def holds(self, repository: str, reference: str) -> bool:
        """Whether a manifest is served."""
        try:
            self.manifest(repository, reference)
        except urllib.error.HTTPError as answer:
            answer.close()
            assert answer.code == 404, answer
            return False
        return True

    def content(self, repository: str, reference: str) -> bytes:
        """All layers of an image or artifact, unpacked, one after the other."""
        body = json.loads(self.manifest(repository, reference))
        return b"".join(unpacked(self.blob(repository, layer["digest"])) for layer in body["layers"])

    def blob(self, repository: str, digest: str) -> bytes:
        """Raises HTTPError."""
        return self.ask(f"/v2/{repository}/blobs/{digest}")

    def tag(self, repository: str, reference: str, *tags: str) -> None:
        """More tags for what is there."""
        body = self.manifest(repository, reference)
        for tag in tags:
            kind = json.loads(body).get("mediaType", MANIFEST)
            self.ask(f"/v2/{repository}/manifests/{tag}", method="PUT", body=body, Content_Type=kind)

    def referrers(self, repository: str, digest: str) -> list[dict[str, Any]]:
        """The descriptors of what refers to a manifest."""
        found: list[dict[str, Any]] = json.loads(self.ask(f"/v2/{repository}/referrers/{digest}"))["manifests"]
        return found

    def received(self) -> float:
        """Bytes of blobs that the registry has received so far."""
        return self._count("tenure_http_received_bytes_total", "")

    def patches(self) -> float:
        """Parts of uploads that it has received so far."""
        return self._count("tenure_http_requests_total", 'method="PATCH"')

    def _count(self, metric: str, label: str) -> float:
        lines = re.findall(rf"^{metric}\{{(.*)\}} (.+)$", self.ask("/metrics").decode(), re.MULTILINE)
        return sum(float(value) for labels, value in lines if 'route="upload' in labels and label in labels)


def unpacked(content: bytes) -> bytes:
    """A blob without its gzip, if it has one."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


class Places:
    """Starts a registry when it is first asked for, and keeps it until the end: not one for each test."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._running: dict[str, Place] = {}
        self._authority: Authority | None = None

    def get(self, name: str) -> Place:
        """One of PLACES. Raises NotServing."""
        if name not in self._running:
            self._running[name] = self._stack.enter_context(self._start(name))
        return self._running[name]

    @contextlib.contextmanager
    def _start(self, name: str) -> Iterator[Place]:
        kind, scheme = name.split()
        settings: Mapping[str, str] = {}
        ca = None
        if scheme == "https":
            self._authority = self._authority or Authority.made(self._folder)
            ca, settings = self._authority.ca, self._authority.settings
        with profile(kind, settings, self._folder / f"{kind}-{scheme}.log") as running:
            yield Place(name, running.address, scheme, ca)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA and what it certified: the registry on the loopback address."""

    ca: Path
    settings: Mapping[str, str]

    @classmethod
    def made(cls, folder: Path) -> "Authority":
        """Alone in its folder, because some clients take every *.crt of one."""
        trusted = folder / "trusted"
        trusted.mkdir()
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = _certificate("the tests' own authority", root_key, None, None)
        served = _certificate("localhost", key, root, root_key)
        (trusted / "ca.crt").write_bytes(root.public_bytes(serialization.Encoding.PEM))
        (folder / "server.pem").write_bytes(served.public_bytes(serialization.Encoding.PEM))
        (folder / "server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        settings = {
            "TENURE_SERVER_TLS_CERT": str(folder / "server.pem"),
            "TENURE_SERVER_TLS_KEY": str(folder / "server.key"),
        }
        return cls(trusted / "ca.crt", settings)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey | None,
) -> x509.Certificate:
    """Of an authority when nobody issues it, else of a server on the loopback address."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signer = issuer_key or key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(_usage(issuer is None), critical=True)
    )
    if issuer is not None:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
