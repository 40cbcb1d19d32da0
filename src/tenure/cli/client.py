"""The admin API from the command line: its operations by the names of the route table."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from tenure.api.openapi import PREFIX
from tenure.api.routes import ROUTES
from tenure.api.schemas import Problem
from tenure.cli.output import WrongUsage, note
from tenure.cli.unreachable import reason
from tenure.config.values import hide_password

FAILED, USAGE, NOT_FOUND, DENIED, BLOCKED = 1, 2, 3, 4, 5

#: items asked for at once
PAGE = 1000

_ROUTES = {route.name: route for route in ROUTES}
_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10)


class Refused(Exception):
    """The registry said no."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def exit_code(self) -> int:
        """3 not found, 4 denied, 5 blocked by protection, else 1."""
        status = self.problem.status
        if status == 409 and self.problem.reasons:
            return BLOCKED
        return {404: NOT_FOUND, 401: DENIED, 403: DENIED}.get(status, FAILED)


class Unreachable(Exception):
    """No answer, or none that Tenure gives."""


class Client:
    """One registry. `server` is its address, with `user:password@` in it where signing in is needed."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server.rstrip("/")

    @property
    def host(self) -> str:
        """HOST or HOST:PORT, as image references write it."""
        return urlsplit(self._server).netloc.rpartition("@")[2]

    async def call(
        self,
        name: str,
        params: Mapping[str, str],
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do the operation `name` with `params` in its path; its answer as the route's answer type.

        Raises Refused, Unreachable.
        """
        route = _ROUTES[name]
        path = route.path.format(**{key: quote(value, safe="") for key, value in params.items()})
        said = {key: _text(value) for key, value in (query or {}).items() if value is not None}
        url = f"{self._server}{PREFIX}{path}" + (f"?{urlencode(said)}" if said else "")
        content = msgspec.json.encode(dict(body)) if body is not None else None
        headers = {"Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                # encoded=True: yarl would decode what was encoded on purpose
                route.method,
                URL(url, encoded=True),
                data=content,
                headers=headers,
                allow_redirects=False,
            ) as answer:
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"No answer from {self._shown()}: {reason(error)}") from error
        if answer.status != route.status:
            raise self._refusal(answer.status, raw)
        try:
            return msgspec.json.decode(raw, type=route.answer or Any)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self._shown()} answers, but not as this version of Tenure does") from error

    async def pages(
        self,
        name: str,
        params: Mapping[str, str],
        *,
        query: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Any]:
        """Every item of a list, page by page; at most `limit` of them."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = await self.call(
                name, params, query={**(query or {}), "limit": min(left or PAGE, PAGE), "cursor": cursor}
            )
            for item in page.items if left is None else page.items[:left]:
                yield item
            if left is not None:
                left -= len(page.items)
            cursor = page.next
            if cursor is None:
                return

    def _refusal(self, status: int, raw: bytes) -> Exception:
        try:
            return Refused(msgspec.json.decode(raw, type=Problem))
        except msgspec.DecodeError:
            return Unreachable(f"{self._shown()} answers {status}, but not as Tenure does")

    def _shown(self) -> str:
        return f"{urlsplit(self._server).scheme}://{self.host}"


def run(server: str, work: Callable[[Client], Awaitable[int]]) -> int:
    """Run one command against a registry; its exit code. What went wrong is said on stderr."""
    try:
        return asyncio.run(_connected(server, work))
    except WrongUsage as error:
        note(str(error))
        return USAGE
    except Refused as refused:
        note(f"Refused: {refused.problem.detail}")
        for reason in refused.problem.reasons:
            if reason not in refused.problem.detail:
                note(f"  - {reason}")
        return refused.exit_code
    except Unreachable as error:
        note(f"{error}; name a registry with --server or TENURE_SERVER, or start one with: tenure serve")
        return FAILED
    except KeyboardInterrupt:
        return 130


async def _connected(server: str, work: Callable[[Client], Awaitable[int]]) -> int:
    if not _is_address(server):
        shown = hide_password(server)
        raise WrongUsage(f"--server and TENURE_SERVER take an address such as http://127.0.0.1:5000, not {shown!r}")
    async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session:
        return await work(Client(session, server))


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        (parts.hostname or "").encode("idna")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or brackets that are none; a name that no name service could know
        return False


def split_reference(text: str, host: str) -> tuple[str, str | None]:
    """`[HOST/]REPOSITORY[:TAG]` -> repository and tag. WrongUsage where the host is another registry's."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        if first != host:
            raise WrongUsage(f"{text} lies on {first}, but {host} is being asked; use --server")
        text = rest
    if "@" in text:
        raise WrongUsage(f"{text}: name a tag, not a digest")
    repository, colon, tag = text.partition(":")
    if not repository or (colon and not tag):
        raise WrongUsage(f"{text!r} is not REPOSITORY or REPOSITORY:TAG")
    return repository, tag or None


def tag_of(text: str, host: str) -> tuple[str, str]:
    """As split_reference, where a tag must be named."""
    repository, tag = split_reference(text, host)
    if tag is None:
        raise WrongUsage(f"{text} names no tag; write {repository}:TAG")
    return repository, tag


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
