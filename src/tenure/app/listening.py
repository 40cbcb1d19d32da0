"""Sockets that listen, and serving on them."""

import asyncio
import socket
import ssl
from collections.abc import Callable

from tenure.config.rules import parse_listen

#: connections the system holds for us while the loop is busy; docker opens one for every request
BACKLOG = 1024


class CannotListen(Exception):
    """The address cannot be listened on; the message says why."""


def open_sockets(listen: str) -> list[socket.socket]:
    """Sockets bound to every address that HOST:PORT stands for; `[::]` stands for IPv4 too. Raises CannotListen."""
    host, port = parse_listen(listen)
    opened: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            both = host == "::" and socket.has_dualstack_ipv6()
            # Port 0: the other addresses get the port that the first was given.
            wanted = (address, opened[0].getsockname()[1] if opened else port)
            opened.append(socket.create_server(wanted, family=family, backlog=BACKLOG, dualstack_ipv6=both))
    except OSError as error:
        for one in opened:
            one.close()
        raise CannotListen(f"cannot listen on {listen}: {error.strerror or error}") from None
    return opened


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


class Listener:
    """Accepts connections for one server until told to stop."""

    def __init__(self, servers: list[asyncio.Server], port: int) -> None:
        self._servers = servers
        self.port = port

    @classmethod
    async def start(
        cls, listen: str, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
    ) -> "Listener":
        """`make` gives the protocol of a connection. Raises CannotListen."""
        loop = asyncio.get_running_loop()
        sockets = open_sockets(listen)
        servers = [await loop.create_server(make, sock=one, ssl=tls, backlog=BACKLOG) for one in sockets]
        return cls(servers, sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Accept no more; what is connected stays connected."""
        for server in self._servers:
            server.close()
