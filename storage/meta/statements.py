"""SQLAlchemy Core statements, compiled once for each dialect and kept.

A statement is a module constant built with Core; the executors send its text with plain values. INSERTs take
their values by column name; other parameters are `bindparam("name")`, whose name must not be that of a column
the statement sets. Lists go through `any_of`, the one construct whose SQL differs between the databases.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement

Statement = sa.sql.expression.ClauseElement
Params = Mapping[str, Any]

_LIST = re.compile(r"IN \(/\*(\w+)\*/\)")

#: `statement.execution_options(**HOT)`: one row by its key, asked for by many requests at once
GATHER = "tenure_gather"
HOT = {GATHER: True}

insert = postgresql.insert  # its ON CONFLICT compiles for SQLite too


class any_of(ColumnElement[bool]):
    """`column IN (the list given as parameter `name`)`; an empty list matches nothing."""

    inherit_cache = True
    type = sa.types.NullType()  # type: ignore[assignment]  # a BOOLEAN would get ` = 1` on SQLite

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column = column
        self.name = name


@compiles(any_of, "postgresql")
def _any_of_postgresql(element: any_of, compiler: Any, **kw: Any) -> str:
    array = sa.bindparam(element.name, type_=postgresql.ARRAY(element.column.type))
    return f"{compiler.process(element.column, **kw)} = ANY ({compiler.process(array, **kw)})"


@compiles(any_of, "sqlite")
def _any_of_sqlite(element: any_of, compiler: Any, **kw: Any) -> str:
    # SqliteText fills the brackets with one placeholder an element.
    return f"{compiler.process(element.column, **kw)} IN (/*{element.name}*/)"


class database_time(ColumnElement[int]):
    """The database's clock in microseconds, to be *selected* beside a row, never compared with in SQL.

    The executor adds its test offset to what comes back in a column named `db_now`.
    """

    inherit_cache = True
    type = sa.BigInteger()


@compiles(database_time, "postgresql")
def _time_postgresql(element: database_time, compiler: Any, **kw: Any) -> str:
    return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


@compiles(database_time, "sqlite")
def _time_sqlite(element: database_time, compiler: Any, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


class Compiled:
    """The text of one statement on one dialect and the parameters it takes.

    `lists` names the brackets of `any_of` that SQLite's executor fills; `tells_time` is True where a column
    is the database's clock; `gathers` where many questions may go to Postgres as one (gather.py).
    """

    def __init__(self, text: str, names: Sequence[str], defaults: Params, *, gathers: bool = False) -> None:
        self.text = text
        self.names = tuple(names)
        self.defaults = dict(defaults)
        self.lists = tuple(dict.fromkeys(_LIST.findall(text)))
        self.gathers = gathers
        self.tells_time = " AS db_now" in text

    def values(self, params: Params) -> list[Any]:
        """The parameters in the order of the text; KeyError for one that is missing."""
        defaults = self.defaults
        return [params[name] if name in params else defaults[name] for name in self.names]


class Compiler:
    """Statement -> Compiled for one dialect, remembered for as long as the statement lives."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        self._known: dict[tuple[int, tuple[str, ...]], tuple[Statement, Compiled]] = {}

    def __call__(self, statement: Statement, params: Params) -> Compiled:
        keys = tuple(params) if isinstance(statement, sa.Insert) else ()
        found = self._known.get((id(statement), keys))
        if found is None:
            found = (statement, self._compile(statement, keys))
            self._known[id(statement), keys] = found
        return found[1]

    def _compile(self, statement: Statement, keys: tuple[str, ...]) -> Compiled:
        columns = None
        if isinstance(statement, sa.Insert) and not statement._values and statement.select is None:
            columns = [key for key in keys if key in statement.table.c]
        compiled: Any = statement.compile(dialect=self._dialect, column_keys=columns)
        if "[POSTCOMPILE_" in str(compiled):
            raise TypeError("a list in a statement is written any_of(column, name), not column.in_(...)")
        required = {name for name, bind in compiled.binds.items() if bind.required}
        defaults = {name: value for name, value in compiled.params.items() if name not in required}
        names = compiled.positiontup if self._dialect.positional else list(compiled.params)
        gathers = isinstance(statement, sa.Executable) and bool(statement.get_execution_options().get(GATHER))
        return Compiled(str(compiled), names, defaults, gathers=gathers)


class _WrittenOut(SQLCompiler):
    """Writes the whole numbers of a statement into its text.

    As a parameter, the 1 of `live = 1` would keep a prepared plan from using the partial index WHERE live = 1.
    """

    def visit_bindparam(self, bindparam: sa.BindParameter[Any], *args: Any, **kw: Any) -> str:
        if bindparam.unique and not bindparam.required and type(bindparam.value) is int:
            return str(bindparam.value) if bindparam.value >= 0 else f"({bindparam.value})"
        return str(super().visit_bindparam(bindparam, *args, **kw))  # type: ignore[no-untyped-call]


def _compiler(dialect: sa.Dialect) -> Compiler:
    dialect.statement_compiler = type("WrittenOut", (_WrittenOut, dialect.statement_compiler), {})
    return Compiler(dialect)


def postgres_compiler() -> Compiler:
    """Texts with `$1::TYPE` placeholders, as asyncpg prepares them."""
    return _compiler(postgresql.asyncpg.dialect())  # type: ignore[no-untyped-call]


def sqlite_compiler() -> Compiler:
    """Texts with `:name` placeholders."""
    return _compiler(sqlite.dialect(paramstyle="named"))
