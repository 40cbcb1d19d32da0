"""The route table says all that router, document, docs and client rely on; what does not is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tenure.api.app import make_admin_app
from tenure.api.describe import describe
from tenure.api.openapi import PREFIX, document
from tenure.api.parameters import PARAMETERS
from tenure.api.route import ChangeQuery, Query, Route, faults
from tenure.api.routes import ROUTES
from tenure.api.schemas import GRAMMARS, Answer, Removal

DOCS = Path(__file__).parents[3] / "docs" / "api.md"
GOOD = next(route for route in ROUTES if route.name == "tag.move")


class Undescribed(msgspec.Struct):
    items: list[str]


Undescribed.__doc__ = ""


class Lax(msgspec.Struct):
    """Takes whatever comes."""


class NoPage(Answer, frozen=True, kw_only=True):
    """A list of its own kind."""

    rows: list[str]


def test_the_table_is_whole() -> None:
    assert faults(ROUTES) == []


def test_every_route_is_in_the_document_with_action_schema_and_words() -> None:
    paths = document(ROUTES)["paths"]
    assert len(ROUTES) > 10
    for route in ROUTES:
        operation = paths[PREFIX + route.path][route.method.lower()]
        assert operation["x-action"] == route.action
        assert operation["summary"] and operation["description"]
        assert "schema" in operation["responses"][str(route.status)]["content"]["application/json"]
        for parameter in operation["parameters"]:
            assert parameter["description"], (route.name, parameter["name"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"action": ""}, "the action is none of ours"),
        ({"action": "own"}, "the action is none of ours"),
        ({"summary": " "}, "it has no summary"),
        ({"description": ""}, "it has no description"),
        ({"group": ""}, "it has no group"),
        ({"answer": None}, "it has no answer type"),
        ({"answer": Undescribed}, "Undescribed is not described"),
        ({"body": None}, "PUT and PATCH must take a body"),
        ({"body": Lax}, "Lax does not refuse unknown fields"),
        ({"query": Query}, "a change must take dry_run"),
        ({"mutates": False}, "only a GET leaves everything as it is"),
        ({"etag": None}, "PUT, PATCH and DELETE must know an entity tag"),
        ({"path": "/repositories/{whatever}"}, "a path parameter is not described"),
        ({"path": "repositories"}, "the path does not begin with /"),
        ({"name": "Move"}, "the name is not noun.verb"),
        ({"method": "FETCH"}, "the method is none of ours"),
    ],
)
def test_a_bad_route_is_refused(change: dict[str, object], fault: str) -> None:
    bad = replace(GOOD, **change)  # type: ignore[arg-type]
    assert f"{bad.name}: {fault}" in faults([bad])
    with pytest.raises(ValueError, match=re.escape(fault)):
        make_admin_app(None, [*ROUTES, bad])  # type: ignore[arg-type]


def test_a_list_must_answer_items_and_next() -> None:
    listing = next(route for route in ROUTES if route.name == "tag.list")
    assert "tag.list: a list answers items and next" in faults([replace(listing, answer=NoPage)])


def test_names_and_addresses_are_used_once() -> None:
    twin = replace(GOOD, path="/repositories/{digest}/tags/{tag}")
    found = faults([GOOD, twin])
    assert "tag.move: the name is taken twice" in found
    assert "PUT /repositories/{}/tags/{}: the address is taken twice" in found


def test_docs_are_current() -> None:
    assert DOCS.read_text() == describe(ROUTES), "run: python -m tenure.api.describe > docs/api.md"


def test_docs_name_every_route_parameter_and_type() -> None:
    page = DOCS.read_text()
    for route in ROUTES:
        assert f"`{route.method} {PREFIX}{route.path}` (`{route.name}`" in page
    for name in document(ROUTES)["components"]["schemas"]:
        assert f"### {name}\n" in page


def test_every_reference_in_the_document_is_resolved() -> None:
    whole = document(ROUTES)
    text = json.dumps(whole)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named == set(whole["components"]["schemas"])


def test_every_change_can_be_rehearsed_and_every_deletion_tells_until_when() -> None:
    changes = [route for route in ROUTES if route.mutates]
    assert {route.method for route in changes} == {"PUT", "POST", "DELETE"}
    for route in changes:
        assert issubclass(route.query, ChangeQuery)
        assert route.method != "DELETE" or route.answer is Removal


def test_parameters_have_words_and_schema() -> None:
    for parameter in PARAMETERS.values():
        assert parameter.description and parameter.schema["pattern"]


def test_refusals_follow_from_what_a_route_is() -> None:
    def of(name: str) -> tuple[int, ...]:
        return next(route for route in ROUTES if route.name == name).refusals

    assert of("openapi.show") == (400, 429, 503)
    assert set(of("tag.move")) >= {400, 401, 403, 404, 409, 412, 413, 415}
    assert 422 in of("tag.restore") and 412 not in of("tag.restore")
    assert 422 in of("tag.move") and 422 in of("repository.delete") and 422 not in of("tag.show")


def test_every_change_takes_an_idempotency_key() -> None:
    for operations in document(ROUTES)["paths"].values():
        for method, operation in operations.items():
            headers = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"}
            assert ("Idempotency-Key" in headers) == (method != "get"), operation["operationId"]


def test_every_grammar_of_what_is_taken_has_words() -> None:
    """What is refused is told in words and not as a regular expression."""
    taken = {struct for route in ROUTES for struct in (route.query, route.body) if struct is not None}
    _, components = msgspec.json.schema_components(taken)
    found = set(re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(components)))
    assert found == {json.dumps(pattern)[1:-1] for pattern in GRAMMARS}


def test_routes_are_values() -> None:
    assert all(isinstance(route, Route) for route in ROUTES)
