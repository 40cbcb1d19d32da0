"""The grammar of repository names and tags (distribution-spec, pulling manifests)."""

import re

from tenure.core.errors import NameInvalid, TagInvalid

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")

MAX_NAME = 255


def check_repository(name: str) -> str:
    """The name itself, or NameInvalid. Nested names have no depth limit; 255 characters in all."""
    if len(name) > MAX_NAME or not _REPOSITORY.match(name):
        raise NameInvalid()
    return name


def check_tag(name: str) -> str:
    """The tag itself, or TagInvalid."""
    if not _TAG.match(name):
        raise TagInvalid()
    return name


def is_tag(name: str) -> bool:
    return _TAG.match(name) is not None
