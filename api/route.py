"""One address of the admin API as a value, and what every such value must say.

The router, the OpenAPI document, docs/api.md and the command line's client are all made from these.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import msgspec

from tenure.api.context import AdminContext
from tenure.api.parameters import PARAMETERS
from tenure.core.errors import Refused, Unauthorized
from tenure.core.origin import Origin
from tenure.storage.meta.database import Database

#: the right a caller needs; `anyone` is for what holds no secret
Action = Literal["anyone", "pull", "push", "delete", "admin"]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

MAX_LIMIT = 1000


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """No query parameters."""


class PageQuery(Query, frozen=True, kw_only=True):
    """One page of a list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT, description="How many items at most.")] = 100
    cursor: Annotated[
        str | None, msgspec.Meta(description="`next` of the page before; without it the list begins.")
    ] = None


class ChangeQuery(Query, frozen=True, kw_only=True):
    """How to make a change."""

    dry_run: Annotated[
        bool, msgspec.Meta(description="Check everything and say what would happen, but change nothing.")
    ] = False


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one route, checked and read. `db` stands inside the change's transaction on mutating routes."""

    context: AdminContext
    db: Database
    origin: Origin
    params: Mapping[str, str]
    query: Any
    body: Any
    routes: "Sequence[Route]"

    @property
    def repository(self) -> str:
        return self.params["repository"]

    def may(self, action: str, repository: str | None) -> bool:
        """Whether the caller has a right, to leave out what is none of theirs."""
        try:
            self.context.access.check(self.origin, action, repository)
        except (Refused, Unauthorized):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers: a value of the route's answer type, and the entity tag of what it shows."""

    body: Any
    etag: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """One address.

    `name` is `noun.verb`, the operation's id. `path` stands below /api/v1; each {parameter} is one segment.
    `answer` None means a body that the handler encoded already, as JSON. `etag` tells the entity tag of what
    the route is about as it is now, None where there is nothing: If-Match and If-None-Match compare with it.
    """

    name: str
    method: Method
    path: str
    handler: Callable[[Call], Awaitable[Reply]]
    action: Action
    summary: str
    description: str
    group: str
    answer: type[msgspec.Struct] | None
    query: type[Query] = Query
    body: type[msgspec.Struct] | None = None
    status: int = 200
    mutates: bool = False
    etag: Callable[[Call], Awaitable[str | None]] | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path, in order."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def paged(self) -> bool:
        return issubclass(self.query, PageQuery)

    @property
    def refusals(self) -> tuple[int, ...]:
        """Every status other than success that this route may answer with, apart from 500."""
        found = {400, 429, 503}
        if self.action != "anyone":
            found |= {401, 403}
        if self.parameters:
            found.add(404)
        if self.mutates:
            found |= {409, 422}
        if self.etag is not None and self.mutates:
            found.add(412)
        if self.body is not None:
            found |= {413, 415}
        return tuple(sorted(found))


def faults(routes: Sequence[Route]) -> list[str]:
    """What is wrong with a table, in sentences; empty when every route says all that the others rely on."""
    found: list[str] = []
    for route in routes:
        found += [f"{route.name}: {fault}" for fault in _faults_of(route)]
    for key in ("name", "address"):
        values = [route.name if key == "name" else f"{route.method} {_shape(route.path)}" for route in routes]
        found += [f"{value}: the {key} is taken twice" for value in sorted({v for v in values if values.count(v) > 1})]
    return found


def _faults_of(route: Route) -> list[str]:
    checks = {
        "the name is not noun.verb": re.fullmatch(r"[a-z_]+\.[a-z_]+", route.name),
        "the method is none of ours": route.method in get_args(Method),
        "the path does not begin with /": route.path.startswith("/"),
        "the action is none of ours": route.action in get_args(Action),
        "it has no summary": route.summary.strip() and "\n" not in route.summary,
        "it has no description": route.description.strip(),
        "it has no group": route.group.strip(),
        "a path parameter is not described": set(route.parameters) <= set(PARAMETERS),
        "only a GET leaves everything as it is": route.mutates == (route.method != "GET"),
        "a change must take dry_run": not route.mutates or issubclass(route.query, ChangeQuery),
        "PUT, PATCH and DELETE must know an entity tag": route.method in ("GET", "POST") or route.etag is not None,
        "PUT and PATCH must take a body": route.method not in ("PUT", "PATCH") or route.body is not None,
        "it has no answer type": route.answer is not None or route.name == "openapi.show",
        "a list answers items and next": not route.paged or _is_page(route.answer),
    }
    missing = [sentence for sentence, good in checks.items() if not good]
    for struct in (route.query, route.body):
        if struct is not None and not struct.__struct_config__.forbid_unknown_fields:
            missing.append(f"{struct.__name__} does not refuse unknown fields")
    for struct in (route.answer, route.body):
        if struct is not None and not (struct.__doc__ or "").strip():
            missing.append(f"{struct.__name__} is not described")
    return missing


def _is_page(answer: type[msgspec.Struct] | None) -> bool:
    return answer is not None and answer.__struct_fields__ == ("items", "next")


def _shape(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)
