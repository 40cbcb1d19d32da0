"""The schema as a page for people: `python -m tenure.storage.meta.describe > docs/schema.md`.

What can be read off the tables is; why each is there stands in `schema_notes`.
"""

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from tenure.storage.meta import records
from tenure.storage.meta.schema_notes import ANYWHERE, CHAPTERS, COLUMNS, INTRODUCTION, TABLES

_METADATA = records.gc_queue.metadata
_DIALECT: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


def describe() -> str:
    """The page, in Markdown. KeyError for a table or a column that nobody has described."""
    known = set(_METADATA.tables)
    told = {name for _, names in CHAPTERS for name in names}
    if known != told:
        raise KeyError(f"tables in no chapter, or gone: {sorted(known ^ told)}")
    lines = [INTRODUCTION.strip()]
    for title, names in CHAPTERS:
        lines += ["", f"## {title}"]
        for name in names:
            lines += ["", *_table(_METADATA.tables[name])]
    return "\n".join(lines) + "\n"


def _table(table: sa.Table) -> Iterator[str]:
    yield f"### {table.name}"
    yield ""
    yield TABLES[table.name]
    yield ""
    yield "| column | type | meaning |"
    yield "| --- | --- | --- |"
    for column in table.columns:
        yield f"| `{column.name}` | {_type(column)} | {_meaning(table, column)} |"
    yield ""
    yield from (f"* {text}" for _, text in sorted(_constraints(table)))


def _type(column: sa.Column[object]) -> str:
    text = str(column.type.compile(_DIALECT)).replace(' COLLATE "C"', "").lower()
    if column.computed is not None:
        return f"{text}, generated"
    if column.server_default is not None and column.identity is None:
        default = column.server_default.arg.text  # type: ignore[attr-defined]
        text += f", default {default}"
    return f"{text}, may be null" if column.nullable else text


def _meaning(table: sa.Table, column: sa.Column[object]) -> str:
    if column.computed is not None:
        return f"`{column.computed.sqltext}`: {COLUMNS[f'{table.name}.{column.name}']}"
    return COLUMNS.get(f"{table.name}.{column.name}") or ANYWHERE[column.name]


def _constraints(table: sa.Table) -> Iterator[tuple[int, str]]:
    for constraint in table.constraints:
        name = _DIALECT.identifier_preparer.format_constraint(constraint)
        if isinstance(constraint, sa.PrimaryKeyConstraint):
            yield 1, f"key `{name}` ({_columns(constraint.columns)})"
        elif isinstance(constraint, sa.ForeignKeyConstraint):
            target = ", ".join(element.column.name for element in constraint.elements)
            yield (
                2,
                f"reference `{name}` ({', '.join(constraint.column_keys)}) to "
                f"`{constraint.referred_table.name}` ({target}){_actions(constraint)}",
            )
        elif isinstance(constraint, sa.CheckConstraint):
            yield 3, f"check `{name}`: `{constraint.sqltext}`"
        else:
            yield 4, f"unique `{name}` ({_columns(constraint.columns)})"  # type: ignore[attr-defined]
    for index in table.indexes:
        where = index.dialect_options["postgresql"]["where"]
        only = f", only where `{where}`" if where is not None else ""
        order, kind = (4, "unique") if index.unique else (5, "index")
        name = _DIALECT.identifier_preparer.format_constraint(index)
        yield order, f"{kind} `{name}` ({_columns(index.columns)}){only}"


def _actions(constraint: sa.ForeignKeyConstraint) -> str:
    cascade = " goes and changes with it" if constraint.onupdate == "CASCADE" else " goes with it"
    return (f":{cascade}" if constraint.ondelete == "CASCADE" else "") + (
        ", may be checked at the end of a set" if constraint.deferrable else ""
    )


def _columns(columns: object) -> str:
    return ", ".join(column.name for column in columns)  # type: ignore[attr-defined]


if __name__ == "__main__":
    print(describe(), end="")
