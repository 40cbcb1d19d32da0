"""What stands around the server: the owner's lock, addresses, certificates, what is printed."""

import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from tenure.app.alive import url
from tenure.app.banner import banner, client_host, warning
from tenure.app.listening import CannotListen, open_sockets
from tenure.app.ownership import AlreadyOwned, owned
from tenure.app.tls import Certificate, CertificateUnusable
from tenure.config.load import Value, load
from tenure.config.tree import Settings


def settings(**flags: str) -> Settings:
    values = {name.replace("__", "."): Value(text, "test") for name, text in flags.items()}
    return load(Path("/dev/null"), values, {"XDG_DATA_HOME": "/data"}).settings


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    with owned(tmp_path / "data"):
        said = r"in use by another Tenure process \(pid \d+\).*--data-dir"
        with pytest.raises(AlreadyOwned, match=said), owned(tmp_path / "data"):
            raise AssertionError("two owners")
    with owned(tmp_path / "data"):
        assert (tmp_path / "data").is_dir()


def test_an_address_in_use_is_said_in_a_sentence() -> None:
    (taken,) = open_sockets("127.0.0.1:0")
    with taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}: "):
            open_sockets(f"127.0.0.1:{port}")


def test_a_name_stands_for_all_its_addresses_with_one_port() -> None:
    sockets = open_sockets("localhost:0")
    ports = {one.getsockname()[1] for one in sockets}
    for one in sockets:
        one.close()
    assert len(ports) == 1


def test_every_address_stands_for_both_families() -> None:
    (one,) = open_sockets("[::]:0")
    with one, socket.create_connection(("127.0.0.1", one.getsockname()[1]), timeout=5):
        pass


def test_the_banner_names_what_clients_write() -> None:
    shown = banner(settings(server__listen="0.0.0.0:5000"), 5000)
    assert "docker tag IMAGE 127.0.0.1:5000/IMAGE" in shown and "docker push 127.0.0.1:5000/IMAGE" in shown
    assert "/data/tenure/tenure.db" in shown and "/data/tenure/blobs" in shown
    assert client_host(settings(server__external_url="https://registry.example.com"), 5000) == "registry.example.com"
    assert client_host(settings(server__listen="[::1]:0"), 41) == "[::1]:41"
    shown = banner(settings(database__url="postgresql://u:hush@db/x", blobs__url="s3://b/p"), 1)
    assert "hush" not in shown and "s3://b/p" in shown


def test_an_open_registry_beyond_this_machine_is_warned_of() -> None:
    assert warning(settings()) == ""
    beyond = settings(server__listen="0.0.0.0:5000")
    assert "no accounts" in warning(beyond) and "--open" in warning(beyond)
    meant = msgspec.structs.replace(beyond, auth=msgspec.structs.replace(beyond.auth, open=True))
    assert warning(meant).startswith("open registry, as auth.open says")


@pytest.mark.parametrize(
    ("listen", "tls", "expected"),
    [
        ("0.0.0.0:5000", False, "http://127.0.0.1:5000/livez"),
        ("[::]:5000", True, "https://[::1]:5000/livez"),
        ("10.1.2.3:80", False, "http://10.1.2.3:80/livez"),
    ],
)
def test_the_health_check_asks_where_the_server_listens(listen: str, tls: bool, expected: str) -> None:
    assert url(listen, tls) == expected


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that signs itself, for `name`."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", chain, "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return chain, key


def shown_name(context: ssl.SSLContext) -> str:
    """The name in the certificate that a handshake with this server context shows."""
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server)
    far = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (near, far):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    certificate = near.getpeercert(binary_form=True)
    assert certificate is not None
    text = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-noout", "-subject"], input=certificate, capture_output=True, check=True
    ).stdout.decode()
    return text.strip().rpartition("=")[2].strip()


def test_a_changed_certificate_is_taken_up(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path, "old.example.com")
    certificate = Certificate(chain, key)
    assert shown_name(certificate.context) == "old.example.com"
    assert not certificate.reload_if_changed()
    make_certificate(tmp_path, "new.example.com")
    assert certificate.reload_if_changed()
    assert shown_name(certificate.context) == "new.example.com"


def test_a_broken_certificate_leaves_the_old_one_in_use(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path, "old.example.com")
    certificate = Certificate(chain, key)
    chain.write_text("half a file")
    with pytest.raises(CertificateUnusable, match="cannot be used"):
        certificate.reload_if_changed()
    assert shown_name(certificate.context) == "old.example.com"
    make_certificate(tmp_path, "new.example.com")
    assert certificate.reload_if_changed()


def test_an_absent_certificate_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CertificateUnusable, match="cannot be read: No such file"):
        Certificate(tmp_path / "absent.pem", tmp_path / "key.pem")
