"""Which proxies are believed, and how much of what they say."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from tenure.registry.forwarding import Forwarding, Peer, valid_host

PROXIES = ("10.0.0.0/8", "127.0.0.1/32", "fd00::/8")


def read(address: str | None, *headers: tuple[str, str], trusted: tuple[str, ...] = PROXIES) -> Peer:
    return Forwarding(trusted).read(address, CIMultiDictProxy(CIMultiDict(headers)))


FOR, PROTO, HOST = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"


@pytest.mark.parametrize(
    ("address", "headers", "wanted"),
    [
        ("203.0.113.1", [(FOR, "6.6.6.6"), (PROTO, "https")], Peer("203.0.113.1")),
        (None, [(FOR, "6.6.6.6")], Peer(None)),
        ("not an address", [(FOR, "6.6.6.6")], Peer("not an address")),
        ("10.0.0.1", [], Peer("10.0.0.1")),
        ("10.0.0.1", [(FOR, "203.0.113.1")], Peer("203.0.113.1")),
        ("10.0.0.1", [(FOR, "6.6.6.6, 203.0.113.1")], Peer("203.0.113.1")),
        ("10.0.0.1", [(FOR, "6.6.6.6, 203.0.113.1, 10.0.0.2")], Peer("203.0.113.1")),
        ("10.0.0.1", [(FOR, "6.6.6.6"), (FOR, "203.0.113.1, 10.0.0.2")], Peer("203.0.113.1")),
        ("10.0.0.1", [(FOR, "10.0.0.3, 10.0.0.2")], Peer("10.0.0.3")),
        ("10.0.0.1", [(FOR, "garbage")], Peer("10.0.0.1")),
        ("10.0.0.1", [(FOR, "203.0.113.1:4711")], Peer("203.0.113.1")),
        ("10.0.0.1", [(FOR, "[2001:db8::1]:4711")], Peer("2001:db8::1")),
        ("::ffff:10.0.0.1", [(FOR, "203.0.113.1")], Peer("203.0.113.1")),
        ("fd00::1", [(FOR, "2001:db8::1")], Peer("2001:db8::1")),
        ("10.0.0.1", [(PROTO, "https"), (HOST, "r.example.com")], Peer("10.0.0.1", "https", "r.example.com")),
        ("10.0.0.1", [(FOR, "203.0.113.1, 10.0.0.2"), (PROTO, "https")], Peer("203.0.113.1", "https")),
        ("10.0.0.1", [(FOR, "203.0.113.1"), (PROTO, "gopher"), (HOST, "a b")], Peer("203.0.113.1")),
        ("10.0.0.1", [("Forwarded", "for=203.0.113.1;proto=https;host=r.example.com")],
         Peer("203.0.113.1", "https", "r.example.com")),
        ("10.0.0.1", [("Forwarded", 'for="[2001:db8::1]:47";proto=HTTPS')], Peer("2001:db8::1", "https")),
        ("10.0.0.1", [("Forwarded", "for=6.6.6.6;host=evil, for=203.0.113.1;host=r, for=10.0.0.2")],
         Peer("203.0.113.1", None, "r")),
        ("10.0.0.1", [("Forwarded", "for=203.0.113.1"), (FOR, "6.6.6.6")], Peer("203.0.113.1")),
        ("10.0.0.1", [("Forwarded", "for=unknown;proto=https")], Peer("10.0.0.1", "https")),
        ("10.0.0.1", [("Forwarded", 'for="unfinished')], Peer("10.0.0.1")),
        ("10.0.0.1", [("Forwarded", ";;;===,,,")], Peer("10.0.0.1")),
    ],
)  # fmt: skip
def test_the_client_is_what_the_outermost_trusted_proxy_saw(
    address: str | None, headers: list[tuple[str, str]], wanted: Peer
) -> None:
    assert read(address, *headers) == wanted


def test_without_trusted_networks_nobody_is_believed() -> None:
    assert read("127.0.0.1", (FOR, "6.6.6.6"), (PROTO, "https"), trusted=()) == Peer("127.0.0.1")


def test_a_network_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        Forwarding(["proxy.local"])


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("registry.example.com", True), ("localhost:5000", True), ("[::1]:5000", True), ("10.0.0.1", True),
        ("", False), ("a b", False), ("a/b", False), ("user@host", False), ("a:b", False), ("a\nb", False),
        ("evil.com:99999999", False),
    ],
)  # fmt: skip
def test_a_host_is_a_name_and_a_port(text: str, valid: bool) -> None:
    assert (valid_host(text) is not None) is valid
