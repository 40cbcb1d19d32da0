"""From the bytes of a request's path to a route and its parameters.

A path is split at `/` before anything in it is decoded, so a repository name with a slash in it travels as
one segment (`team%2Fapp`) and nothing encoded can change which route is found. Each segment is decoded once.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from tenure.api.parameters import PARAMETERS
from tenure.api.route import Route
from tenure.core.errors import BadRequest, NotFound, Unsupported


class Matcher:
    """Finds routes of one table."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._by_shape: list[tuple[tuple[str, ...], dict[str, Route]]] = []
        for route in routes:
            shape = tuple(route.path.split("/")[1:])
            for known, methods in self._by_shape:
                if _blank(known) == _blank(shape):
                    methods[route.method] = route
                    break
            else:
                self._by_shape.append((shape, {route.method: route}))

    def match(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route for a raw path below /api/v1, and its parameters, read and checked.

        NotFound where there is no such address, Unsupported (405 with Allow) for a method it does not have,
        BadRequest for what is not percent-encoded UTF-8, and what each parameter's grammar refuses.
        """
        segments = path.split("/")[1:]
        for shape, methods in self._by_shape:
            if not _fits(shape, segments):
                continue
            route = methods.get("GET" if method == "HEAD" else method)
            if route is None:
                allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
                raise Unsupported(
                    f"{method[:20]} is not supported here; use {' or '.join(allowed)}",
                    headers={"Allow": ", ".join(allowed)},
                )
            pairs = zip(route.path.split("/")[1:], segments, strict=True)
            return route, {part[1:-1]: _read(part[1:-1], text) for part, text in pairs if part.startswith("{")}
        raise NotFound("there is no such address; /api/v1/openapi.json describes those there are")


def _blank(shape: Sequence[str]) -> list[str]:
    return ["{}" if part.startswith("{") else part for part in shape]


def _fits(shape: Sequence[str], segments: Sequence[str]) -> bool:
    return len(shape) == len(segments) and all(
        part.startswith("{") or part == segment for part, segment in zip(shape, segments, strict=True)
    )


def _read(name: str, segment: str) -> str:
    try:
        text = unquote(segment, errors="strict")
        text.encode()
    except UnicodeError:
        raise BadRequest(f"the {name} in the path is not percent-encoded UTF-8") from None
    return PARAMETERS[name].read(text)
