"""Requests made from the document: no answer is a 500, none has a status or a body the document does not know."""

import asyncio
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from helpers.admin import APP, Admin
from helpers.images import index, push, put_image
from tenure.api.openapi import document
from tenure.api.routes import ROUTES

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
EXAMPLES = 4


# The server draws random numbers in this process while the thread generates, which hypothesis takes for the strategy's.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.parametrize("mode", ["positive", "negative"])
async def test_the_document_holds(admin: Admin, mode: str) -> None:
    for seed in ("a", "b"):
        made = await put_image(admin.db, "team/app", "v1", "v2", seed=seed)
        await push(admin.db, "team/app", index([made]), "multi")
    await admin.ask("DELETE", f"{APP}/tags/v2")
    # The server answers in this loop while the requests come from a thread.
    seen = await asyncio.to_thread(_try_all, admin.address, mode)
    assert len(seen) >= len(ROUTES) - 1
    assert not {status for statuses in seen.values() for status in statuses if status >= 500}


def _try_all(address: str, mode: str) -> dict[str, set[int]]:
    schema = schemathesis.openapi.from_dict(document(ROUTES))
    seen: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        raw = operation.definition.raw
        name = raw["operationId"]
        if mode == "negative" and not raw["parameters"]:
            continue  # nothing there that could be wrong
        statuses = seen.setdefault(name, set())
        _try(operation, address, mode, statuses)
    return seen


def _try(operation: Any, address: str, mode: str, statuses: set[int]) -> None:
    strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        # A failing request is short as it is; to shrink it would take minutes and the other tests' time.
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=strategy)
    def attempt(case: Any) -> None:
        answer = case.call(base_url=address)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    attempt()
