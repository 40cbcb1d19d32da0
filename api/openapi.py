"""The OpenAPI 3.1 document, made from the table that routes."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

import tenure
from tenure.api.parameters import PARAMETERS
from tenure.api.route import Call, Reply, Route
from tenure.api.schemas import Problem

PREFIX = "/api/v1"
_REFERENCE = "#/components/schemas/{name}"
#: what a refusal means where HTTP's own phrase says too little
REFUSALS = {
    400: "The request cannot be understood: a parameter, a field or the body is not as described.",
    401: "Signing in is required.",
    403: "The caller has no right to do this.",
    404: "What the path names is not here.",
    409: "What is stored forbids it: it is in use (`reasons` say by what), or the same request is still running.",
    412: "If-Match or If-None-Match does not fit what is stored now.",
    413: "The body is larger than 1 MiB.",
    415: "The body is compressed, or the Content-Type is absent or not application/json.",
    422: "This Idempotency-Key was used for another request.",
    429: "Too many requests at once; Retry-After says when to come again.",
    503: "A store does not answer; Retry-After says when to come again.",
}


async def show(call: Call) -> Reply:
    """The document of the table that is being served."""
    return Reply(msgspec.Raw(msgspec.json.encode(document(call.routes))))


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document. Stable: the same table gives the same bytes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tenure",
            "version": tenure.__version__,
            "description": "Administration of a Tenure registry. Names in paths are one percent-encoded segment each.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"basic": []}, {"bearer": []}],
        "tags": [{"name": group} for group in dict.fromkeys(route.group for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas(routes),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def schemas(routes: Sequence[Route]) -> dict[str, Any]:
    """JSON Schemas of every body taken or given, by name, in order of their names."""
    types: set[type[msgspec.Struct]] = {Problem}
    for route in routes:
        types |= {struct for struct in (route.answer, route.body) if struct is not None}
    ordered = sorted(types, key=lambda struct: struct.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    return dict(sorted(components.items()))


def query_parameters(route: Route) -> list[dict[str, Any]]:
    """Each query parameter with `name`, `schema`, `required` and `description`."""
    _, components = msgspec.json.schema_components([route.query], ref_template=_REFERENCE)
    schema = components[route.query.__name__]
    found = []
    for name, shape in schema.get("properties", {}).items():
        shape = dict(shape)
        description = shape.pop("description", "")
        alternatives = [one for one in shape.get("anyOf", ()) if one != {"type": "null"}]
        if len(alternatives) == 1:
            # A query parameter cannot be null: it is there or not.
            shape = {key: value for key, value in shape.items() if key not in ("anyOf", "default")} | alternatives[0]
        found.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": description,
                "schema": shape,
            }
        )
    return found


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": route.description,
        "tags": [route.group],
        "x-action": route.action,
        "parameters": [*_path_parameters(route), *query_parameters(route), *_headers(route)],
        "responses": _responses(route),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(route.body)}},
        }
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PARAMETERS[name].description,
            "schema": dict(PARAMETERS[name].schema),
        }
        for name in route.parameters
    ]


def _headers(route: Route) -> list[dict[str, Any]]:
    said: dict[str, str] = {}
    if route.mutates:
        said["Idempotency-Key"] = "The same key with the same request gives the first answer again for 24 hours."
    if route.mutates and route.etag is not None:
        said["If-Match"] = "Only when the entity tag is still one of these."
        said["If-None-Match"] = "Only when the entity tag is none of these; `*`: only when there is nothing yet."
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": _header_schema(name)}
        for name, text in said.items()
    ]


def _header_schema(name: str) -> Mapping[str, Any]:
    if name == "Idempotency-Key":
        return {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
    return {"type": "string"}


def _responses(route: Route) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": {"schema": {"type": "string"}}}
    if route.etag is not None:
        headers["ETag"] = {"schema": {"type": "string"}, "description": "Entity tag of what is shown."}
    schema = {"type": "object"} if route.answer is None else _reference(route.answer)
    answers: dict[str, Any] = {
        str(route.status): {
            "description": HTTPStatus(route.status).phrase,
            "headers": headers,
            "content": {"application/json": {"schema": schema}},
        }
    }
    for status in route.refusals:
        answers[str(status)] = {
            "description": REFUSALS[status],
            "content": {"application/problem+json": {"schema": _reference(Problem)}},
        }
    return answers


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=struct.__name__)}
