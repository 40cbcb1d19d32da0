"""Why a registry gave no answer, in words for people: the HTTP client's own name classes, options and tuples."""

import errno
import os
import re
import socket
import ssl

import aiohttp

#: what goes before these words is the address that was asked
_WORDS = {
    errno.ECONNREFUSED: "the connection was refused",
    errno.ECONNRESET: "the connection was closed before an answer came",
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ENETUNREACH: "there is no way to that network",
    errno.ETIMEDOUT: "nothing came in time",
}
_NUMBER = re.compile(r"\[Errno (\d+)\]")


def reason(error: Exception) -> str:
    """One phrase without a full stop for whatever a request can fail with."""
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy {error.host}:{error.port}, which the environment names, cannot be reached"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {_certificate(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientSSLError):
        return "it does not speak TLS there; does its address begin with http://?"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _system(error.os_error)
    if isinstance(error, TimeoutError):
        return _WORDS[errno.ETIMEDOUT]
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return _WORDS[errno.ECONNRESET]
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer ended before it was complete"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what answers there does not speak HTTP"
    return _system(error) if isinstance(error, OSError) else "the request failed"


def _system(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the name of the host is not known"
    if isinstance(error, ConnectionResetError):
        return _WORDS[errno.ECONNRESET]
    # Where a name stands for several addresses, asyncio puts their failures into one text.
    found = _NUMBER.search(str(error))
    number = error.errno or (int(found[1]) if found else 0)
    if not number:
        return "the connection failed"
    return _WORDS.get(number) or os.strerror(number)


def _certificate(error: Exception) -> str:
    return str(error.verify_message) if isinstance(error, ssl.SSLCertVerificationError) else "it cannot be checked"
