"""A refusal as an answer (distribution-spec, "Error codes"): the one place that renders one for `/v2`.

Clients print `message` word for word; it is all that a person at a terminal gets to see.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tenure.core.errors import TenureError
from tenure.registry.http import Answer

_encode = msgspec.json.Encoder(enc_hook=str).encode


def error_answer(error: TenureError) -> Answer:
    """`{"errors": [{"code", "message", "detail"}]}` with the error's status and headers.

    `detail` is an object. The reasons of a refusal stand in it as `reasons`.
    """
    found: dict[str, Any] = {"code": error.code, "message": error.message}
    detail = _detail(error)
    if detail:
        found["detail"] = detail
    body = _encode({"errors": [found]})
    return Answer(error.status, {**error.headers, "Content-Type": "application/json"}, body)


def _detail(error: TenureError) -> Mapping[str, Any]:
    if error.detail is None:
        detail: Mapping[str, Any] = {}
    elif isinstance(error.detail, Mapping):
        detail = error.detail
    else:
        detail = {"detail": error.detail}
    return {**detail, "reasons": list(error.reasons)} if error.reasons else detail
