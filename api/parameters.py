"""The parameters that stand in paths: how each is read, and how the document describes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tenure.core.digest import Digest
from tenure.core.names import MAX_NAME, check_repository, check_tag

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"


@dataclass(frozen=True, slots=True)
class Parameter:
    """`read` gives the checked value or raises what tells the caller why not; `schema` is JSON Schema."""

    read: Callable[[str], str]
    description: str
    schema: Mapping[str, object]


def _digest(text: str) -> str:
    return str(Digest.parse(text))


PARAMETERS: Mapping[str, Parameter] = {
    "repository": Parameter(
        check_repository,
        "Name of a repository, as one percent-encoded segment: `team%2Fapp`.",
        {"type": "string", "maxLength": MAX_NAME, "pattern": rf"^{_COMPONENT}(?:/{_COMPONENT})*$"},
    ),
    "tag": Parameter(
        check_tag, "Name of a tag.", {"type": "string", "pattern": r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$"}
    ),
    "digest": Parameter(
        _digest,
        "Digest of a manifest, `sha256:<64 hex>` or `sha512:<128 hex>`.",
        {"type": "string", "pattern": r"^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"},
    ),
}
