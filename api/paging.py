"""Pages and cursors of the admin API: `?limit=&cursor=` -> `{"items": [...], "next": ...}`."""

from collections.abc import Sequence
from typing import TypeVar

from tenure.core.errors import BadRequest
from tenure.core.page import decode_cursor, encode_cursor

T = TypeVar("T")

_LAST = (1 << 63) - 1


def cursor_text(cursor: str | None) -> str:
    """The name a page goes on after; empty at the beginning. BadRequest for what we never handed out."""
    if cursor is None:
        return ""
    position = decode_cursor(cursor)
    match position:
        case [str(name)] if name.isascii() and name.isprintable():
            return name
    raise _foreign()


def cursor_number(cursor: str | None) -> int:
    """The row number a page goes on below; the greatest of all at the beginning."""
    if cursor is None:
        return _LAST
    position = decode_cursor(cursor)
    match position:
        case [int(number)] if not isinstance(number, bool) and 0 <= number <= _LAST:
            return number
    raise _foreign()


def cut(found: Sequence[T], limit: int) -> tuple[Sequence[T], T | None]:
    """Of `limit + 1` items asked for: those of this page, and its last one where another page follows."""
    if len(found) <= limit:
        return found, None
    return found[:limit], found[limit - 1]


def next_cursor(position: str | int | None) -> str | None:
    return None if position is None else encode_cursor([position])


def _foreign() -> BadRequest:
    return BadRequest("the cursor is not one that this list handed out; begin again without it")
