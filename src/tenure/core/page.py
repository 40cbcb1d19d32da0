"""Paging: `n`/`last`/`Link` on `/v2` (distribution-spec, listing tags), cursors on `/api/v1`."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tenure.core.errors import BadRequest, PageInvalid

MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class PageRequest:
    """How many items, and after which one. `n` is clamped to MAX_PAGE; `last` is exclusive."""

    n: int
    last: str = ""

    @classmethod
    def parse(cls, n: str | None, last: str | None) -> "PageRequest":
        if n is None:
            return cls(MAX_PAGE, last or "")
        if not n.isascii() or not n.isdigit() or len(n) > 18:
            raise PageInvalid()
        return cls(min(int(n), MAX_PAGE), last or "")


def next_link(path: str, page: PageRequest, last: str, **more: str) -> str:
    """The value of a `Link` header that leads to the page after `last`; relative, so proxies cannot break it."""
    query = f"n={page.n}&last={quote(last, safe='')}"
    query += "".join(f"&{key}={quote(value, safe='')}" for key, value in more.items())
    return f'<{path}?{query}>; rel="next"'


def encode_cursor(position: list[Any]) -> str:
    """An opaque cursor for `/api/v1` from the sort key of the last item shown."""
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> list[Any]:
    """The reverse; BadRequest for anything we did not hand out."""
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        position = None
    if not isinstance(position, list):
        raise BadRequest("the cursor is not one that this registry handed out; begin again without it")
    return position
