"""Structured lines: JSON for machines, text on a terminal, each with the id of its request, none with a secret.

Lines go to standard error. The access line takes a path of its own past structlog's processors, because one
is written for every request.
"""

import asyncio
import logging
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TextIO, cast

import msgspec
import structlog

from tenure.core.origin import Origin
from tenure.obs.settings import LogSettings

#: the request that the running task works for; empty in background work
request_id: ContextVar[str] = ContextVar("tenure_request_id", default="")

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: what signs a request or opens a door, wherever it stands in a line
_SECRETS = re.compile(
    r"((?:X-Amz-[A-Za-z-]+|AWSAccessKeyId|Signature|access_token|refresh_token|token|password|secret)=)[^&\s\"']+"
    r"|((?:Bearer|Basic) )[A-Za-z0-9+/=._~-]{6,}"
    r"|([a-z0-9+]+://[^:/@\s]*:)[^@/\s]+(?=@)",
    re.IGNORECASE,
)
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Outlet:
    """A stream that takes what it can. A full disk or a reader that went away must not end the registry.

    `lost` counts the lines that could not be written, over all outlets of the process.
    """

    lost = 0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        # ValueError: the stream was closed.
        except (OSError, ValueError):
            Outlet.lost += text.count("\n")
            return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's lines to `stream` (standard error) in the format chosen."""
    out = Outlet(stream or sys.stderr)
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    level = _LEVELS[settings.level]
    render = structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else _json
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _with_request,
            structlog.processors.format_exc_info,
            _scrub,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, out)),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(max(level, logging.WARNING if level > 10 else logging.INFO))


def scrub(text: str) -> str:
    """`text` with signatures, tokens and passwords replaced by ***, and in characters that every stream takes."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return _SECRETS.sub(lambda found: f"{found[1] or found[2] or found[3]}***", text)


def access_log(settings: LogSettings, stream: TextIO | None = None) -> "AccessLog | None":
    """The writer of access lines, or None when they are switched off."""
    if not settings.access or _LEVELS[settings.level] > _LEVELS["info"]:
        return None
    out = Outlet(stream or sys.stderr)
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    return AccessLog(out.write, console)


class _Line(msgspec.Struct, frozen=True, gc=False):
    """One request, in the order it is read. Times in milliseconds, sizes in bytes; no query: it may hold secrets."""

    time: str
    level: str
    event: str
    method: str
    path: str
    status: int
    duration_ms: float
    received: int
    sent: int
    remote: str | None
    actor: str
    user_agent: str
    request_id: str


class AccessLog:
    """Writes one line for each request. Called once the answer is made.

    The lines of one turn of the event loop go out in one write: at a thousand requests a second a write for each
    would cost as much as a database look-up.
    """

    def __init__(self, write: Callable[[str], object], console: bool) -> None:
        self._out = write
        self._waiting: list[str] = []
        self._console = console
        self._second = 0
        self._stamp = ""

    def __call__(
        self, method: str, path: str, status: int, seconds: float, *, received: int, sent: int, origin: Origin
    ) -> None:
        """`path` without the query; `seconds` from when the head had been read until the answer was made or sent."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        stamp = f"{self._stamp}.{int((now - second) * 1e6):06d}Z"
        level = "info" if status < 500 else "warning"
        took = round(seconds * 1000, 3)
        if self._console:
            self._put(f"{stamp} {method} {path} {status} {took} ms {received}>{sent} {origin.request_id}\n")
            return
        line = _Line(
            stamp, level, "request", method, path, status, took, received, sent,
            origin.address, origin.actor, origin.user_agent, origin.request_id,
        )  # fmt: skip
        self._put(_encode(line).decode() + "\n")

    def _put(self, line: str) -> None:
        self._waiting.append(line)
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._write)
            except RuntimeError:
                self._write()

    def _write(self) -> None:
        lines, self._waiting = self._waiting, []
        self._out("".join(lines))


def _json(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
    first = {key: event.pop(key) for key in ("time", "level", "event") if key in event}
    return _encode({**first, **event}).decode()


def _with_request(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    current = request_id.get()
    if current:
        event.setdefault("request_id", current)
    return event


def _scrub(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = scrub(value)
        elif isinstance(value, BaseException):
            event[key] = scrub(str(value))
    return event


class _Bridge(logging.Handler):
    """Lines of libraries that use the standard library's logging, in our format."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno,
            record.getMessage(),
            logger=record.name,
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )
