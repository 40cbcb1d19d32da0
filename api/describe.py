"""docs/api.md from the route table: `python -m tenure.api.describe` prints it."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tenure.api.openapi import PREFIX, REFUSALS, query_parameters, schemas
from tenure.api.parameters import PARAMETERS
from tenure.api.route import Route
from tenure.api.routes import ROUTES

_INTRODUCTION = """\
# The admin API

Made from the route table by `python -m tenure.api.describe`; do not edit. The same table makes the OpenAPI 3.1
document that a running registry serves at `/api/v1/openapi.json`.

* Everything is JSON. Times are RFC 3339 in UTC, sizes bytes, digests `algorithm:hex`.
* A repository name in a path is one percent-encoded segment: `team/app` is written `team%2Fapp`.
* Lists take `?limit=&cursor=` and answer `{"items": [...], "next": ...}`; `next` null is the end, else it is the
  `cursor` of the next page. A page may hold fewer items than `limit` and still have a next one.
* Fields and query parameters that are not described here are refused with 400, by name.
* `?dry_run=1` on a change checks everything, answers what would happen, and changes nothing.
* Bodies are sent with `Content-Type: application/json` and uncompressed; another type, or none, gets 415.
* `Idempotency-Key` on every change (POST, PUT and DELETE): the same request with the same key gets its first
  answer again for 24 hours (`Idempotency-Replayed: true`), whatever happened since; another request with the same
  key gets 422; while the first runs, 409. What was refused, and a rehearsal, leave the key unused.
* `If-Match` and `If-None-Match` on PUT and DELETE compare with the `ETag` that GET gave; 412 where they do not fit.
* Refusals are `application/problem+json` (RFC 9457) with `code`, `detail`, `reasons` and `request_id`.
* The right a caller needs on the repository (without one: on the registry) stands beside each address.

Beside it, without any right: `GET /livez` (the process), `GET /readyz` (200, or 503 while requests should go
elsewhere) and `GET /metrics` (Prometheus).
"""


def describe(routes: Sequence[Route]) -> str:
    """The page, as Markdown."""
    lines = [_INTRODUCTION]
    for group in dict.fromkeys(route.group for route in routes):
        lines.append(f"## {group.capitalize()}\n")
        for route in routes:
            if route.group == group:
                lines += _route(route)
    lines.append("## Refusals\n")
    lines += _table(("status", "meaning"), ((str(status), text) for status, text in REFUSALS.items()))
    lines.append("## Types\n")
    for name, schema in schemas(routes).items():
        lines += _type(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _route(route: Route) -> list[str]:
    needs = "nothing" if route.action == "anyone" else f"`{route.action}`"
    lines = [f"### {route.summary}\n", f"`{route.method} {PREFIX}{route.path}` (`{route.name}`, needs {needs})\n"]
    lines.append(f"{route.description}\n")
    rows = [(f"`{name}`", "path", PARAMETERS[name].description) for name in route.parameters]
    for parameter in query_parameters(route):
        default = parameter["schema"].get("default")
        note = "" if default in (None, "", False) else f" Default {default}."
        rows.append((f"`{parameter['name']}`", _kind(parameter["schema"]), parameter["description"] + note))
    if rows:
        lines += _table(("parameter", "type", "meaning"), rows)
    takes = f"Takes `{route.body.__name__}`. " if route.body else ""
    gives = f"`{route.answer.__name__}`" if route.answer else "the OpenAPI document"
    refusals = ", ".join(str(status) for status in route.refusals)
    lines.append(f"{takes}Answers {route.status} with {gives}; refuses with {refusals}.\n")
    return lines


def _type(name: str, schema: dict[str, Any]) -> list[str]:
    required = schema.get("required", [])
    rows = [
        (f"`{field}`", _kind(shape), "" if field in required else "optional", shape.get("description", ""))
        for field, shape in schema.get("properties", {}).items()
    ]
    description = " ".join(schema.get("description", "").split())
    return [f"### {name}\n", f"{description}\n", *_table(("field", "type", "", "meaning"), rows)]


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if schema.get("format") == "date-time":
        return "time"
    return str(schema.get("type", "any"))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]


if __name__ == "__main__":
    sys.stdout.write(describe(ROUTES))
