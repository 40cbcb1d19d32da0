"""Answers onto the wire: small ones, streams, stretches of files, redirects.

HEAD gets the headers of GET and not one byte more. A body that breaks off in the middle ends the connection:
the length was promised, and a client must not take what it has for the whole.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import structlog
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from tenure.core.errors import StorageUnavailable, TenureError
from tenure.registry.errors_answer import error_answer
from tenure.registry.http import Answer, Elsewhere, File, Result, Stream

#: what every answer of this server carries
COMMON = {
    "Docker-Distribution-Api-Version": "registry/2.0",
    "Server": "Tenure",
    "X-Content-Type-Options": "nosniff",
}
#: seconds a client may take to accept one piece; one that takes none holds memory and a place in the queue
STALL = 300.0
#: bytes of a file handed to the kernel at once
_PIECE = 1 << 20
_log = structlog.get_logger(__name__)


async def send(
    http: web.BaseRequest, result: Result, common: Mapping[str, str], *, close: bool
) -> tuple[web.StreamResponse, int]:
    """The response, and how many bytes of body it has or had. `common` are headers that every answer carries.

    A small answer is returned unsent: the server writes it in one piece. Nothing is raised for a client or a
    store that goes away: the response then is one that could not be finished, and its connection is gone.
    """
    if isinstance(result, Answer):
        return _small(http, result, common, close), 0 if http.method == "HEAD" else len(result.body)
    if isinstance(result, Elsewhere):
        headers = {**result.headers, **common, "Location": result.url}
        return _small(http, Answer(307, headers), common, close), 0
    response = web.StreamResponse(status=result.status, headers={**result.headers, **common})
    response.content_length = result.length
    if close:
        response.force_close()
    if http.method == "HEAD":
        if isinstance(result, Stream):
            await _close(result.chunks)
        return response, 0
    if isinstance(result, Stream):
        return response, await _stream(http, response, result)
    try:
        file = _open(result.path)
    except OSError as error:
        _log.error("answer.file_unreadable", path=str(result.path), error=str(error))
        return await send(http, error_answer(StorageUnavailable()), common, close=close)
    with file:
        return response, await _file(http, response, result, file)


def _small(http: web.BaseRequest, answer: Answer, common: Mapping[str, str], close: bool) -> web.Response:
    headers = {**answer.headers, **common}
    if http.method == "HEAD":
        headers.setdefault("Content-Length", str(len(answer.body)))
        response = web.Response(status=answer.status, headers=headers)
    else:
        response = web.Response(status=answer.status, headers=headers, body=answer.body)
    if close:
        response.force_close()
    return response


_COMMON_LINES = "".join(f"{name}: {value}\r\n" for name, value in COMMON.items())
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
#: RFC 9110 8.6: no length where there can be no body
_WITHOUT_LENGTH = frozenset({204, 304})


def small_answer(method: str, answer: Answer, request_id: str, *, close: bool) -> bytes:
    """A whole answer as it goes over the wire: what `send` and aiohttp make of the same one.

    ValueError for a header that would end its line early.
    """
    bodiless = method == "HEAD" or answer.status in _WITHOUT_LENGTH
    headers = answer.headers
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if answer.status not in _WITHOUT_LENGTH and "Content-Length" not in headers:
        lines.append(f"Content-Length: {len(answer.body)}\r\n")
    if not bodiless and answer.body and "Content-Type" not in headers:
        lines.append("Content-Type: application/octet-stream\r\n")
    if close:
        lines.append("Connection: close\r\n")
    own = "".join(lines)
    if own.count("\n") + own.count("\r") != 2 * len(lines) or "\0" in own or not request_id.isprintable():
        raise ValueError("a header holds a line break")
    date = rfc822_formatted_time()
    head = f"{_STATUS_LINES[answer.status]}{own}{_COMMON_LINES}X-Request-Id: {request_id}\r\nDate: {date}\r\n\r\n"
    return head.encode() if bodiless else head.encode() + answer.body


async def _stream(http: web.BaseRequest, response: web.StreamResponse, stream: Stream) -> int:
    sent = 0
    try:
        await response.prepare(http)
        async for chunk in stream.chunks:
            async with asyncio.timeout(STALL):
                await response.write(chunk)
            sent += len(chunk)
        if sent == stream.length:
            await response.write_eof()
            return sent
        _log.error("answer.length_differs", promised=stream.length, sent=sent)
    except (ConnectionError, TimeoutError):
        pass  # the client went away, or took nothing for too long
    except TenureError as error:
        _log.error("answer.broke_off", error=error.message, sent=sent, promised=stream.length)
    finally:
        await _close(stream.chunks)
    _break_off(http, response)
    return sent


async def _file(http: web.BaseRequest, response: web.StreamResponse, wanted: File, file: BinaryIO) -> int:
    loop = asyncio.get_running_loop()
    sent = 0
    try:
        await response.prepare(http)
        while sent < wanted.length:
            transport = http.transport
            if transport is None or transport.is_closing():
                break
            async with asyncio.timeout(STALL):
                # Over TLS the loop reads and encrypts piece by piece instead.
                count = await loop.sendfile(transport, file, wanted.start + sent, min(_PIECE, wanted.length - sent))
            if not count:
                _log.error("answer.file_too_short", path=str(wanted.path), sent=sent, promised=wanted.length)
                break
            sent += count
        if sent == wanted.length:
            await response.write_eof()
            return sent
    # RuntimeError: the loop's own word for a transport that began to close.
    except (OSError, RuntimeError, TimeoutError) as error:
        if not isinstance(error, ConnectionError | RuntimeError | TimeoutError):
            _log.error("answer.file_unreadable", path=str(wanted.path), error=str(error))
    _break_off(http, response)
    return sent


def _break_off(http: web.BaseRequest, response: web.StreamResponse) -> None:
    response.force_close()
    if http.transport is not None:
        http.transport.abort()


def gone(http: web.BaseRequest) -> web.Response:
    """For a request whose client is not there any more: nothing is sent."""
    response = web.Response(status=499)
    _break_off(http, response)
    return response


def _open(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


async def _close(chunks: AsyncIterator[bytes]) -> None:
    closing = getattr(chunks, "aclose", None)
    if isinstance(chunks, AsyncGenerator) or closing is not None:
        await closing()  # type: ignore[misc]
