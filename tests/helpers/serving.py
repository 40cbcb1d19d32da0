"""A registry on a port of its own, in this process, built from a Plane."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tenure.registry.plane import Plane
from tenure.registry.server import RegistryServer, make_server


@dataclass(frozen=True, slots=True)
class Served:
    """A running server; `address` is scheme, host and port."""

    address: str
    server: RegistryServer


@asynccontextmanager
async def served(plane: Plane, *, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Served]:
    """`options` are those of make_server."""
    server = make_server(plane, **options)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield Served(f"{'https' if tls else 'http'}://127.0.0.1:{port}", server)
    finally:
        listener.close()
        await server.shutdown(1.0)
