"""One setting as it stands in a file, the environment or a flag -> its value, or a sentence why not."""

import json
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from tenure.core.units import format_duration
from tenure.storage.settings import Duration, Secret, Size

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_USER_PASSWORD = re.compile(r"(\A[a-z0-9+]+://[^:/@?]*:).*(?=@)")
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*pass[^=&]*=)[^&]*", re.IGNORECASE)


def convert(kind: Any, raw: Any) -> Any:
    """`raw` (what TOML knows, or text) as `kind`; ValueError with a sentence for people."""
    if typing.get_origin(kind) is Literal:
        return _choice(typing.get_args(kind), raw)
    if isinstance(kind, types.GenericAlias):
        return _list(raw)
    return _CONVERTERS[kind](raw)


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} must be text in quotes")
    return raw


def _choice(allowed: tuple[str, ...], raw: Any) -> str:
    if raw not in allowed:
        words = ", ".join(word or '""' for word in allowed)
        raise ValueError(f"{raw!r} must be one of {words}")
    return str(raw)


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in _TRUE | _FALSE:
        return raw.lower() in _TRUE
    raise ValueError(f"{raw!r} must be true or false")


def _whole(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise ValueError(f"{raw!r} must be a whole number")
    try:
        number = int(raw)
    except ValueError:
        raise ValueError(f"{raw!r} must be a whole number") from None
    if number < 0:
        raise ValueError(f"{raw!r} must not be negative")
    return number


def _duration(raw: Any) -> Duration:
    if isinstance(raw, bool) or not (isinstance(raw, str) or raw == 0):
        raise ValueError(f"{raw!r} is not a duration; write for example 90s, 36h or 7d")
    return Duration.parse(str(raw))


def _size(raw: Any) -> Size:
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise ValueError(f"{raw!r} is not a size; write for example 4096, 8MiB or 10GB")
    return Size.parse(str(raw))


def _list(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, str):
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    if isinstance(raw, list) and all(isinstance(part, str) for part in raw):
        return tuple(raw)
    raise ValueError(f"{raw!r} must be a list of texts")


def _secret(raw: Any) -> Secret:
    # Never the value in the sentence: it would end in a log.
    if not isinstance(raw, str):
        raise ValueError("a secret must be text in quotes")
    return Secret(raw)


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    str: _text,
    bool: _boolean,
    int: _whole,
    Duration: _duration,
    Size: _size,
    Secret: _secret,
}


def show(value: Any) -> str:
    """A value as TOML for people: secrets hidden, also the password inside a URL."""
    if isinstance(value, Secret):
        return '"***"' if value else '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Duration):
        return f'"{format_duration(value)}"'
    if isinstance(value, Size):
        return f'"{_exact_size(value)}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(show(part) for part in value) + "]"
    return json.dumps(hide_password(value), ensure_ascii=False) if isinstance(value, str) else str(value)


def _exact_size(size: int) -> str:
    units = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
    return next((f"{size // step}{unit}" for unit, step in units if size and size % step == 0), str(size))


def hide_password(text: str) -> str:
    """`scheme://user:password@host?password=x` without the passwords; other text as it is."""
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1***", text))
