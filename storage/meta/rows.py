"""Rows whose clock is moved: by tests, and for as long as they have been remembered."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tenure.storage.meta.database import Row


class ShiftedRow(dict[str, Any]):
    """A copy of a row with `db_now` moved; by column name or position, and it iterates over its values."""

    def __missing__(self, key: Any) -> Any:
        if isinstance(key, (int, slice)):
            return list(self.values())[key]
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())


def tells_time(row: Any) -> bool:
    """Whether a column of this row is the database's clock."""
    return "db_now" in row.keys()  # noqa: SIM118  # a row's iterator gives its values


def shift_clock(rows: Iterable[Any], offset: int) -> Sequence[Row]:
    """Move the column `db_now` of each row by `offset` microseconds."""
    return [shift_row(row, offset) for row in rows]


def shift_row(row: Any, offset: int) -> Row:
    """Move the column `db_now` by `offset` microseconds."""
    shifted = ShiftedRow(row.items() if isinstance(row, ShiftedRow) else zip(row.keys(), row, strict=True))
    shifted["db_now"] += offset
    return shifted
