"""A place that cannot be used is said with its cause, what to do, and the setting that names it."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenure.app.ownership import owned
from tenure.config.load import Value, load
from tenure.config.places import DATA_DIR, foresee_database, prove_blobs, prove_database, refusal
from tenure.config.tree import Settings
from tenure.core.errors import StorageUnavailable

NOBODY = 65534


def settings(folder: Path, **flags: str) -> Settings:
    values = {name.replace("__", "."): Value(text, "test") for name, text in flags.items()}
    return load(Path("/dev/null"), {"server.data_dir": Value(str(folder), "test"), **values}, {}).settings


@contextmanager
def without_rights(folder: Path) -> Iterator[int]:
    """The folder may only be looked at, and we are nobody whom that does not bind; the user's number."""
    user = os.geteuid()
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield os.geteuid()
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_good_place_is_made_and_left_empty(tmp_path: Path) -> None:
    chosen = settings(tmp_path / "some" / "data")
    prove_database(chosen)
    prove_blobs(chosen)
    assert [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*"))] == [
        Path("some"), Path("some/data"), Path("some/data/blobs")
    ]  # fmt: skip
    elsewhere = settings(tmp_path / "no", database__url="postgresql://u@h/n", blobs__url="s3://bucket/prefix")
    prove_database(elsewhere)
    prove_blobs(elsewhere)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("below", ["", "sub", "sub/folder"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    chosen = settings(tmp_path / "file" / below)
    said = f"{re.escape(str(tmp_path))}/file is not a folder; .*{re.escape(DATA_DIR)}$"
    for prove in (prove_database, prove_blobs, foresee_database):
        with pytest.raises(StorageUnavailable, match=said):
            prove(chosen)
    with pytest.raises(StorageUnavailable, match=said), owned(tmp_path / "file" / below):
        raise AssertionError("owned a file")


def test_the_setting_that_names_the_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chosen = settings(
        tmp_path, database__url=f"sqlite:///{tmp_path}/file/x.db", blobs__url=f"file://{tmp_path}/file"
    )  # fmt: skip
    with pytest.raises(StorageUnavailable, match=r"database.url \(--database-url, TENURE_DATABASE_URL\)$"):
        prove_database(chosen)
    with pytest.raises(StorageUnavailable, match=r"blobs.url \(--blobs-url, TENURE_BLOBS_URL\)$"):
        prove_blobs(chosen)
    folder = settings(tmp_path, database__url=f"sqlite:///{tmp_path}")
    for prove in (prove_database, foresee_database):
        with pytest.raises(StorageUnavailable, match=r"it is a folder where a file is needed; .*database.url"):
            prove(folder)


def test_a_place_without_rights_says_who_needs_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "tenure.db").write_text("")
    chosen = settings(folder)
    with without_rights(folder) as user:
        for prove in (prove_database, prove_blobs):
            with pytest.raises(StorageUnavailable) as refused:
                prove(chosen)
            assert f"user {user} may not write there; give that user the right to, or" in str(refused.value)
            assert str(refused.value).endswith(DATA_DIR) and "Errno" not in str(refused.value)
        with pytest.raises(StorageUnavailable, match=r"tenure\.lock cannot be used: user"), owned(folder):
            raise AssertionError("owned without rights")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "the file system is read-only; mount it writable, or name another place"),
        (errno.ENOSPC, "the disk is full; free some space, or name another place"),
        (errno.ELOOP, "Too many levels of symbolic links; name another place"),
    ],
)
def test_other_refusals_are_told_with_what_to_do(number: int, said: str) -> None:
    shown = refusal(Path("/data"), OSError(number, os.strerror(number)), DATA_DIR)
    assert shown == f"/data cannot be used: {said} with {DATA_DIR}"


def test_looking_ahead_makes_nothing(tmp_path: Path) -> None:
    chosen = settings(tmp_path / "data")
    assert foresee_database(chosen) == tmp_path / "data" / "tenure.db"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tenure.db").write_text("")
    assert foresee_database(chosen) is None
    assert foresee_database(settings(tmp_path, database__url="postgresql://u@h/n")) is None
