"""Durations (`36h`, `7d`) and sizes (`10GiB`) as people write them."""

import re

from tenure.core.clock import DAY, HOUR, MINUTE, SECOND

_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d|w))+\Z")
_DURATION_PART = re.compile(r"(\d+)(ms|s|m|h|d|w)")
_DURATION_UNITS = {"ms": 1000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)?\Z", re.IGNORECASE)
_SIZE_UNITS = {
    "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip


def parse_duration(text: str) -> int:
    """`1h30m`, `7d`, `250ms` -> microseconds; `0` is allowed. ValueError says what is accepted."""
    if text == "0":
        return 0
    if not _DURATION.match(text):
        raise ValueError(f"{text!r} is not a duration; write for example 90s, 36h or 7d")
    return sum(int(n) * _DURATION_UNITS[unit] for n, unit in _DURATION_PART.findall(text))


def format_duration(micros: int) -> str:
    """The largest unit that divides evenly: 36 h -> `36h`."""
    for unit in ("w", "d", "h", "m", "s", "ms"):
        size = _DURATION_UNITS[unit]
        if micros and micros % size == 0:
            return f"{micros // size}{unit}"
    return "0"


def parse_size(text: str) -> int:
    """`10GiB`, `512 MB`, `4096` -> bytes. ValueError says what is accepted."""
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size; write for example 4096, 8MiB or 10GB")
    return int(match[1]) * _SIZE_UNITS[(match[2] or "B").lower()]


def format_size(size: int) -> str:
    """`1.5 MiB`, for people."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
