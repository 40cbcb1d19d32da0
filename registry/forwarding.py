"""Whom to believe about the client's address and the name it used: trusted proxies, nobody else."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from multidict import CIMultiDictProxy

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")
_PAIR = re.compile(r'\s*([A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s;,"]+)\s*')


class Peer(NamedTuple):
    """The client as seen through the proxies. `scheme` and `host` are None where no proxy said anything."""

    address: str | None
    scheme: str | None = None
    host: str | None = None


class Forwarding:
    """Reads `Forwarded` (RFC 7239), else `X-Forwarded-For`, `-Proto` and `-Host`, of requests that came from one
    of `networks` (CIDR). ValueError for what is no network.
    """

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(text) for text in networks)
        self._trusts = lru_cache(maxsize=1024)(self._is_inside)

    def read(self, address: str | None, headers: "CIMultiDictProxy[str]") -> Peer:
        """`address` is the other end of the connection; None for one without an address."""
        if not self._networks or address is None or not self._trusts(address):
            return Peer(address)
        forwarded = headers.getall("Forwarded", ())
        hops = _forwarded(", ".join(forwarded)) if forwarded else _x_forwarded(headers)
        return self._client(address, hops)

    def _client(self, address: str, hops: list[Peer]) -> Peer:
        """The hop added by the outermost proxy that is trusted: what stands left of it a client can invent."""
        found = Peer(address)
        for hop in reversed(hops):
            # A proxy that told only some of it did not take back what the one behind it said.
            found = Peer(hop.address or found.address, hop.scheme or found.scheme, hop.host or found.host)
            if hop.address is None or not self._trusts(hop.address):
                break
        return found

    def _is_inside(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any(candidate in network for network in self._networks for candidate in (parsed, mapped) if candidate)


@lru_cache(maxsize=256)
def valid_host(text: str | None) -> str | None:
    """`host` or `host:port` when it looks like one. Asked for each request, nearly always with the same."""
    return text if text and _HOST.match(text) else None


def _forwarded(header: str) -> list[Peer]:
    """One Peer an element, client first; what does not parse ends the reading with nothing believed."""
    hops: list[Peer] = []
    pairs: dict[str, str] = {}
    at = 0
    while at < len(header):
        match = _PAIR.match(header, at)
        if match is None:
            return []
        pairs[match[1].lower()] = match[2].strip('"')
        at = match.end()
        separator = header[at : at + 1]
        if separator not in ("", ";", ","):
            return []
        if separator != ";":
            hops.append(Peer(_address(pairs.get("for")), _scheme(pairs.get("proto")), valid_host(pairs.get("host"))))
            pairs = {}
        at += 1
    return hops


def _x_forwarded(headers: "CIMultiDictProxy[str]") -> list[Peer]:
    addresses = _values(headers, "X-Forwarded-For")
    schemes = _values(headers, "X-Forwarded-Proto")
    hosts = _values(headers, "X-Forwarded-Host")
    count = max(len(addresses), len(schemes), len(hosts))

    def at(values: list[str], index: int) -> str | None:
        """The values end with the nearest proxy; a list of one is about the whole way."""
        place = index - (count - len(values))
        return values[place] if place >= 0 else None

    return [
        Peer(_address(at(addresses, index)), _scheme(at(schemes, index)), valid_host(at(hosts, index)))
        for index in range(count)
    ]


def _values(headers: "CIMultiDictProxy[str]", name: str) -> list[str]:
    return [text.strip() for line in headers.getall(name, ()) for text in line.split(",") if text.strip()]


def _scheme(text: str | None) -> str | None:
    scheme = text.lower() if text else None
    return scheme if scheme in ("http", "https") else None


def _address(text: str | None) -> str | None:
    """The IP address in `1.2.3.4`, `1.2.3.4:567`, `[::1]:567`, `::1`; None for names and `unknown`."""
    if not text:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
