"""The end of a server: running requests finish, idle connections close, nothing new comes in.

aiohttp's own shutdown marks every connection as closing at once, and from then on throws away what arrives on
it: a running upload would wait for bytes that were received and dropped. Docker and others never send a broken
chunk again. So a connection is closed here only when no request is running on it.
"""

import asyncio
import time

from aiohttp.web_protocol import RequestHandler

from tenure.registry.server import RegistryServer

#: seconds between two looks at the connections
_LOOK = 0.05
#: seconds that handlers cut at the deadline get to clean up; aiohttp takes 0 for "for ever"
_CLEAN_UP = 1.0


async def drain(server: RegistryServer, seconds: float) -> int:
    """Waits until every running request has been answered, `seconds` at most; how many had to be cut.

    The caller has stopped accepting connections before.
    """
    server.draining = True
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for connection in server.connections:
            if is_idle(connection):
                connection.force_close()
        if not server.connections:
            break
        await asyncio.sleep(_LOOK)
    cut = sum(not is_idle(connection) for connection in server.connections)
    await server.shutdown(_CLEAN_UP)
    return cut


def is_idle(connection: RequestHandler) -> bool:
    """Whether nothing runs on this connection and no request has arrived on it."""
    waiter = connection._waiter
    return waiter is not None and not waiter.done() and not connection._messages
