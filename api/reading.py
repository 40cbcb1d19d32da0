"""Reads what a request says beside its path: query, headers, body. Everything unknown is refused by name."""

import asyncio
import json
import re
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from tenure.api.route import Query, Route
from tenure.api.schemas import GRAMMARS
from tenure.core.errors import BadRequest, BodyTooLarge, MediaTypeUnsupported, RequestTimeout
from tenure.core.media import bare

MAX_BODY = 1 << 20  # bytes
IDLE_SECONDS = 30.0  # a body of 1 MiB that stops arriving for this long is given up
_MAX_PAIRS = 100
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `(.*)`)?\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`(?: - at `(.*)`)?\Z", re.DOTALL)
#: msgspec's words for a text of the wrong grammar -> ours
_GRAMMARS = {f"Expected `str` matching regex {pattern!r}": f"must {words}" for pattern, words in GRAMMARS.items()}
_KEY = re.compile(r"[!-~]{1,255}\Z")
_ENTITY_TAG = re.compile(r'(?:W/)?"[!#-~]*"')


def read_query(route: Route, raw: str) -> Query:
    """The query as the route's type. BadRequest for unknown, repeated or ill-formed parameters."""
    said: dict[str, str] = {}
    pairs = [pair for pair in raw.split("&") if pair]
    if len(pairs) > _MAX_PAIRS:
        raise BadRequest(f"a query may have {_MAX_PAIRS} parameters at most")
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
            (name + value).encode()
        except UnicodeError:
            raise BadRequest("the query is not percent-encoded UTF-8") from None
        if name in said:
            raise BadRequest(f"the query parameter {_short(name)} is given twice")
        said[name] = value
    try:
        return msgspec.convert(said, route.query, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(_sentence("query parameter", str(error))) from None


async def read_body(route: Route, request: web.Request) -> tuple[bytes, Any]:
    """The body's bytes and its value as the route's type.

    BodyTooLarge beyond 1 MiB however it is framed, MediaTypeUnsupported for anything but plain JSON,
    BadRequest for what does not fit the type.
    """
    if route.body is None:
        if request.body_exists and await _at_most(request, 0):
            raise BadRequest("this address takes no body")
        return b"", None
    said = request.headers.get("Content-Type", "")
    if bare(said) != "application/json":
        found = f"this one says {_short(said)!a}" if said else "this one has none"
        raise MediaTypeUnsupported(f"a body is sent with Content-Type: application/json; {found}")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaTypeUnsupported("the body must not be compressed")
    raw = await _at_most(request, MAX_BODY)
    if len(raw) > MAX_BODY:
        raise BodyTooLarge(f"a body may have {MAX_BODY} bytes at most")
    try:
        body = msgspec.json.decode(raw, type=route.body)
        json.loads(raw, object_pairs_hook=_no_duplicates)  # msgspec takes the last of two and says nothing
        return raw, body
    except msgspec.ValidationError as error:
        raise BadRequest(_sentence("field", str(error))) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        said = f": {_short(str(error))}" if isinstance(error, msgspec.DecodeError | json.JSONDecodeError) else ""
        raise BadRequest(f"the body is not valid JSON{said}") from None


def read_idempotency_key(request: web.Request) -> str | None:
    """The Idempotency-Key, or None; BadRequest for one that is not 1 to 255 printable ASCII characters."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.match(key):
        raise BadRequest("an Idempotency-Key has 1 to 255 printable ASCII characters without blanks")
    return key


def read_condition(request: web.Request, name: str) -> list[str] | None:
    """The entity tags of If-Match or If-None-Match (RFC 9110 13.1), `["*"]`, or None where it is absent."""
    lines = request.headers.getall(name, None)
    if lines is None:
        return None
    said = ", ".join(lines).strip()
    if said == "*":
        return ["*"]
    found = _ENTITY_TAG.findall(said)
    if not found or re.sub(r"[,\s]", "", _ENTITY_TAG.sub("", said)):
        raise BadRequest(f'{name} takes entity tags in double quotes, as the ETag header gives them, or "*"')
    return found


async def _at_most(request: web.Request, limit: int) -> bytes:
    # One byte more than allowed is read, so that the caller sees that there was more.
    taken = bytearray()
    while len(taken) <= limit:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                piece = await request.content.read(limit + 1 - len(taken))
        except TimeoutError:
            raise RequestTimeout() from None
        except (ConnectionError, ClientPayloadError, HttpProcessingError):
            raise BadRequest("the body ended before it was complete") from None
        if not piece:
            break
        taken += piece
    return bytes(taken)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("a key stands twice in one object of the body; which one did you mean?")
    return found


def _sentence(noun: str, error: str) -> str:
    for pattern, verb in ((_UNKNOWN, "is not known here"), (_MISSING, "is missing")):
        found = pattern.match(error)
        if found:
            where = f" in {found[2]}" if found[2] else ""
            return f"the {noun} {_short(found[1])}{where} {verb}"
    text, _, where = error.partition(" - at `")
    name, text = where.rstrip("`").removeprefix("$.").removeprefix("$"), _GRAMMARS.get(text, text)
    return f"the {noun} {_short(name)}: {_short(text)}" if name else f"the body: {_short(text)}"


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
