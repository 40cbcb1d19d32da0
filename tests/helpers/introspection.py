"""What a database really holds, as text that two databases can be compared by."""

import contextlib
import re
import sqlite3

import asyncpg

_POSTGRES = {
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               a.attgenerated, pg_get_expr(d.adbin, d.adrelid), l.collname
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    """,
    "constraints": """
        SELECT c.relname, k.conname, k.contype, pg_get_constraintdef(k.oid), k.condeferrable, k.condeferred,
               k.confupdtype, k.confdeltype
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE k.connamespace = 'public'::regnamespace AND k.contype <> 'n'
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "sequences": "SELECT sequencename, data_type, start_value, cycle FROM pg_sequences",
}


async def dump_postgres(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        lines = []
        for what, query in _POSTGRES.items():
            lines += [f"{what} {tuple(row)}" for row in await connection.fetch(query)]
        return sorted(lines)
    finally:
        await connection.close()


def dump_sqlite(path: str) -> list[str]:
    """The definitions of each table, in no order, and those of the indexes."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        lines = []
        objects = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        for kind, name, sql in objects:
            flat = re.sub(r"\s+", " ", sql).replace("( ", "(").replace(" )", ")")
            if kind == "table" and not name.startswith("sqlite_"):
                body = flat[flat.index("(") + 1 : flat.rindex(")")]
                lines += [f"{name}: {part}" for part in _split(body)]
                lines += [
                    f"{name}: column {column['cid']} {column['name']} hidden {column['hidden']}"
                    for column in _rows(connection, f"PRAGMA table_xinfo({name})")
                ]
            elif kind == "index":
                lines.append(flat)
        return sorted(lines)


def _rows(connection: sqlite3.Connection, query: str) -> list[sqlite3.Row]:
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(query).fetchall()


def _split(body: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(body):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(body[start:place].strip())
            start = place + 1
    return [*parts, body[start:].strip()]
