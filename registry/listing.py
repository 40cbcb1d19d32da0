"""What the lists of `/v2` share: one page of names with its `Link`, and an entity tag over the answer."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from tenure.core.page import PageRequest, next_link
from tenure.registry.http import Answer, Request
from tenure.registry.ranges import names_etag


async def one_page(
    request: Request, fetch: Callable[[PageRequest], Awaitable[list[str]]]
) -> tuple[list[str], Mapping[str, str]]:
    """The names that `n` and `last` ask for, and the headers: `Link` only where more names exist.

    `n=0` is an empty list without a `Link`; an `n` above the limit is clamped, and the `Link` then leads on.
    PageInvalid (400) for an `n` that is no number.
    """
    page = PageRequest.parse(request.param("n"), request.param("last"))
    # One more than asked for, to know whether there is a next page; also the existence check for n=0.
    names = await fetch(replace(page, n=page.n + 1))
    shown = names[: page.n]
    if len(names) > page.n and shown:
        return shown, {"Link": next_link(request.path, page, shown[-1])}
    return shown, {}


def tagged_answer(request: Request, body: bytes, headers: Mapping[str, str]) -> Answer:
    """200 with an entity tag over the body and the `Link`, or 304 for a poller that has just this page."""
    etag = f'"{hashlib.sha256(body + headers.get("Link", "").encode()).hexdigest()}"'
    known = request.header("if-none-match")
    if known is not None and names_etag(known, etag):
        return Answer(304, {"ETag": etag})
    return Answer(200, {"Content-Type": "application/json", "ETag": etag, **headers}, body)
