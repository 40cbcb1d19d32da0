"""Time as a value: microseconds since 1970 UTC, the unit of every time column."""

import time
from datetime import UTC, datetime

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def system_now() -> int:
    """This machine's clock, for logs and metrics only: decisions use the database's (Session.now)."""
    return time.time_ns() // 1000


def to_rfc3339(moment: int) -> str:
    """`2026-01-31T12:00:00.000000Z`."""
    stamp = datetime.fromtimestamp(moment / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{moment % SECOND:06d}Z"


def from_rfc3339(text: str) -> int:
    """The reverse; ValueError for anything that is not a time with a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, for example 2026-01-31T12:00:00Z")
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * SECOND + moment.microsecond
