"""Rows whose clock was moved: only tests move it."""

from collections.abc import Mapping, Sequence
from typing import Any

from tenure.storage.meta.database import Row


class ShiftedRow:
    """A copy of a row with `db_now` moved by the test offset; by column name or position."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: Any) -> Any:
        return list(self._values.values())[key] if isinstance(key, (int, slice)) else self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[str]:
        return list(self._values)


def shift_clock(rows: Sequence[Any], offset: int) -> Sequence[Row]:
    """Move the column `db_now` of each row by `offset` microseconds."""
    return [ShiftedRow({**dict(row), "db_now": row["db_now"] + offset}) for row in rows]
