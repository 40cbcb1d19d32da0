"""`tenure check` proves rights by doing, and says what is missing and how to get it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from helpers.databases import NewDatabaseUrl
from helpers.s3 import S3Server, create_bucket

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs the command with these settings: exit code and what was said."""

    def run(**settings: str) -> tuple[int, str]:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("TENURE_")}
        ran = subprocess.run(
            [sys.executable, "-m", "tenure", "check", "--data-dir", str(tmp_path / "data")],
            env=environment | settings, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return ran.returncode, ran.stdout + ran.stderr

    return run


def test_a_folder_that_can_be_used(check: Check) -> None:
    code, said = check()
    assert code == 0, said
    assert re.search(r"^ok +database +SQLite", said, re.MULTILINE)
    assert re.search(r"^ok +schema +\d+ changes pending; tenure serve applies them", said, re.MULTILINE)
    assert re.search(r"^ok +store +file:///", said, re.MULTILINE)


def test_a_folder_that_cannot(check: Check, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = check(TENURE_BLOBS_URL=f"file://{tmp_path / 'file'}")
    assert code == 1
    assert re.search(r"^ok +database", said, re.MULTILINE) and re.search(r"^MISSING +store", said, re.MULTILINE)
    assert "Traceback" not in said


async def test_postgres_and_a_bucket(check: Check, new_database_url: NewDatabaseUrl, s3_server: S3Server) -> None:
    bucket = f"tenure-{uuid4().hex}"
    await create_bucket(s3_server, bucket)
    store = {
        "TENURE_S3_ENDPOINT": s3_server.endpoint,
        "TENURE_S3_ACCESS_KEY": s3_server.access_key,
        "TENURE_S3_SECRET_KEY": s3_server.secret_key,
    }
    url = await new_database_url("postgresql")
    code, said = check(TENURE_DATABASE_URL=url, TENURE_BLOBS_URL=f"s3://{bucket}/p", **store)
    assert code == 0, said
    assert re.search(r"^ok +database +Postgres 1[5-9]", said, re.MULTILINE)
    assert s3_server.secret_key not in said

    code, said = check(TENURE_DATABASE_URL=url, TENURE_BLOBS_URL=f"s3://absent-{uuid4().hex}", **store)
    assert code == 1
    assert re.search(r"^MISSING +store +.*absent-", said, re.MULTILINE)


async def test_a_database_user_without_rights_is_told_what_to_ask_for(
    check: Check, new_database_url: NewDatabaseUrl
) -> None:
    url = await new_database_url("postgresql")
    role = f"limited_{uuid4().hex[:8]}"
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(f"CREATE ROLE {role} LOGIN")
        await owner.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        parts = urlsplit(url)
        limited = urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
        code, said = check(TENURE_DATABASE_URL=limited)
        assert code == 1
        assert f'GRANT CREATE, USAGE ON SCHEMA "public" TO "{role}"' in said
    finally:
        await owner.execute(f"DROP ROLE {role}")
        await owner.close()


def test_a_database_that_is_away_is_said_at_once(check: Check) -> None:
    code, said = check(TENURE_DATABASE_URL="postgresql://u:hush@127.0.0.1:1/none")
    assert code == 1
    assert re.search(r"^MISSING +database", said, re.MULTILINE)
    assert "hush" not in said and "Traceback" not in said
