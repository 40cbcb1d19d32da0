"""One connection: aiohttp's parser and protocol, and a direct way for small questions.

A GET or HEAD without a body, alone on its connection, whose route always gives a small answer, needs none of
what aiohttp sets up for each request (a stream of the body, a response that may be prepared, written and
chunked, two tasks): its answer is one write. The parser is aiohttp's either way, the same values reach the same
handlers, and what is not plain goes aiohttp's way. Both ways answer alike (tests/protocol/test_connection.py).
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from tenure.core.errors import BadRequest, HeadTooLarge, TenureError
from tenure.registry import answering
from tenure.registry.answering import COMMON
from tenure.registry.errors_answer import error_answer

_log = structlog.get_logger(__name__)


#: the whole answer as bytes, and whether the connection ends with it
DirectAnswer = Coroutine[Any, None, tuple[bytes, bool]]


class Direct(Protocol):
    """What a connection asks of its server."""

    def directly(self, message: RawRequestMessage, address: str | None, scheme: str) -> "DirectAnswer | None":
        """What makes the answer, and never raises; None for the ordinary way."""

    def refused(self, status: int, sent: int, address: str | None) -> str:
        """Count and log an answer to what was no request; the id that it gets."""


class Connection(RequestHandler):
    """One connection. What its parser refuses is answered in the registry's own form.

    A request whose head has begun and is not whole after `head_limit` seconds ends it: aiohttp knows only how long
    a connection may be idle, and a client that sends a byte now and then would keep it for that long.
    """

    __slots__ = ("_address", "_direct", "_directly", "_head_limit", "_head_timer", "_reader_timer", "_scheme")

    def __init__(self, server: web.Server, direct: Direct, *, head_limit: float, **options: object) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)  # type: ignore[arg-type]
        self._direct = direct
        self._directly: asyncio.Task[None] | None = None
        self._address: str | None = None
        self._scheme = "http"
        self._head_limit = head_limit
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = self.peername
        self._address = (str(peer[0]) if isinstance(peer, tuple) else str(peer or "")) or None
        self._scheme = "https" if self.ssl_context else "http"

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_watch()

    def force_close(self) -> None:
        transport = self.transport
        super().force_close()
        # Closing waits for the client to take what is written already, for ever if need be.
        if self._reader_timer is None and transport is not None and transport.get_write_buffer_size():
            self._watch_reader(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end_head()
        self._end_watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # aiohttp's loop of requests waits for `_waiter`. It is taken away while the parser works, so that what
        # arrived can be looked at before that loop wakes for it.
        waiter, self._waiter = self._waiter, None
        heads = self._request_count
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if heads != self._request_count:
            self._end_head()
        elif self._head_timer is None and self._is_between_requests() and data.strip(b"\r\n"):
            self._head_timer = self._loop.call_later(self._head_limit, self._head_took_too_long)
        if waiter is None:
            self._refuse_broken_body()
        elif self._messages and not waiter.done() and not self._begin_directly(waiter):
            waiter.set_result(None)

    def _watch_reader(self, transport: asyncio.Transport | None) -> None:
        """A client that takes nothing of its answers for answering.STALL holds memory, and a drain: cut it."""
        if transport is None:
            return
        left = transport.get_write_buffer_size()

        def look() -> None:
            self._reader_timer = None
            if transport.get_write_buffer_size() == left:
                transport.abort()
            else:
                self._watch_reader(transport)

        self._reader_timer = self._loop.call_later(answering.STALL, look)

    def _end_watch(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _is_between_requests(self) -> bool:
        return self._current_request is None and not self._request_in_progress and not self._messages

    def _head_took_too_long(self) -> None:
        self._head_timer = None
        if self._is_between_requests():
            self.force_close()

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _begin_directly(self, waiter: "asyncio.Future[None]") -> bool:
        message, payload = self._messages[0]
        if (
            len(self._messages) > 1
            or payload is not EMPTY_PAYLOAD
            or not isinstance(message, RawRequestMessage)
            or message.version != HttpVersion11  # an older client must be told that the connection stays open
            or message.should_close
            or message.upgrade
            or self._paused  # the client has not taken the answer before
        ):
            return False
        answer = self._direct.directly(message, self._address, self._scheme)
        if answer is None:
            return False
        self._messages.popleft()
        assert self._parser is not None
        self._parser.message_consumed()
        # Without its waiter this connection is busy for all who ask: the keep-alive timer, the drain, the parser.
        self._waiter = None
        self._request_in_progress = True
        # Not at once, although most could be: the answers of one turn of the loop then go out together, and reading,
        # answering and logging in turns costs a fifth less than going through all of them for each request.
        self._directly = self._loop.create_task(self._finish_directly(answer, waiter))
        return True

    async def _finish_directly(self, answer: DirectAnswer, waiter: "asyncio.Future[None]") -> None:
        written, ends = b"", True
        try:
            written, ends = await answer
        finally:
            self._directly = None
            self._end_directly(waiter, written, ends)

    def _end_directly(self, waiter: "asyncio.Future[None]", written: bytes, ends: bool) -> None:
        if self.transport is not None:
            self.transport.write(written)
        self._request_in_progress = False
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        self._go_on(waiter, ends)

    def _go_on(self, waiter: "asyncio.Future[None]", ends: bool) -> None:
        if ends or self._force_close or self._close or self.transport is None:
            waiter.cancel()
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        self._waiter = waiter
        if self._messages and not waiter.done():
            waiter.set_result(None)

    def _refuse_broken_body(self) -> None:
        # A body whose framing is broken is dropped by the parser without a word to whoever reads it: the refusal
        # waits behind the running request, which would wait for the idle time-out. Nothing else can be in the
        # queue before a body has ended.
        request = self._current_request
        if request is not None and self._messages and not request.content.is_eof():
            self._messages.clear()
            self.close()
            request.content.set_exception(web.RequestPayloadError())

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """aiohttp's word for what its own loop did not expect."""
        # The rest of a body that nobody wanted, being read away, turned out to be broken: the connection ends.
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """400 for what is not HTTP, 500 for an application that let an exception out; then the connection ends."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; only the end of the connection can tell the client")
        error: TenureError = TenureError()
        if status == 400:
            error = _unreadable(exc)
        else:
            _log.error("request failed", exc_info=exc)
        answer = error_answer(error)
        request_id = self._direct.refused(answer.status, len(answer.body), self._address)
        headers = {**answer.headers, **COMMON, "X-Request-Id": request_id, "Connection": "close"}
        response = web.Response(status=answer.status, headers=headers, body=answer.body)
        response.force_close()
        return response


def _unreadable(exc: BaseException | None) -> TenureError:
    if isinstance(exc, LineTooLong):
        return HeadTooLarge(f"the request line or a header is longer than {exc.args[1]} bytes")
    # The parser says what is wrong first, and shows the client's own bytes after an empty line.
    reason = " ".join(getattr(exc, "message", "").partition("\n\n")[0].replace(":", "").split())
    if reason.startswith("Too many"):
        return HeadTooLarge("the request has too many headers")
    return BadRequest(f"the request is not valid HTTP/1.1: {reason}" if reason else "the request is not valid HTTP/1.1")
