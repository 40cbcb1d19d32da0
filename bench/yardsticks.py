"""What the machine can do at the moment of the run: a figure without these says little on another day."""

import hashlib
import sqlite3
import tempfile
import time
from pathlib import Path

import asyncpg


def sqlite_point_select() -> float:
    """CPU of one look-up by primary key among 10,000 rows of a file, in microseconds."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as scratch:
        database = sqlite3.connect(Path(scratch) / "points.db")
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE points (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
            database.executemany("INSERT INTO points VALUES (?, ?)", ((key, b"x" * 2048) for key in range(10_000)))
            database.commit()
            repeats = 50_000
            start = time.process_time()
            for turn in range(repeats):
                database.execute("SELECT payload FROM points WHERE id = ?", (turn * 7919 % 10_000,)).fetchone()
            return (time.process_time() - start) / repeats * 1e6
        finally:
            database.close()


def sha256_64_mib() -> float:
    """CPU of hashing 64 MiB, in seconds per GB."""
    data = bytes(64 << 20)
    start = time.process_time()
    hashlib.sha256(data).digest()
    return (time.process_time() - start) / len(data) * 1e9


async def postgres_select_1(url: str) -> float:
    """The client's CPU of one `SELECT 1`, prepared, one after the other, in microseconds."""
    connection = await asyncpg.connect(url)
    try:
        statement = await connection.prepare("SELECT 1")
        repeats = 5_000
        start = time.process_time()
        for _ in range(repeats):
            await statement.fetchval()
        return (time.process_time() - start) / repeats * 1e6
    finally:
        await connection.close()
