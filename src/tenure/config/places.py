"""The folders and the file that settings name, proven usable before anything is built on them.

What the system refuses is said with its cause, what to do about it and the setting that names the place.
"""

import errno
import os
import tempfile
from pathlib import Path

from tenure.config.rules import sqlite_path
from tenure.config.tree import Settings
from tenure.core.errors import StorageUnavailable
from tenure.storage.blobs.folder import folder_from_url

#: settings as people set them
DATA_DIR = "server.data_dir (--data-dir, TENURE_SERVER_DATA_DIR)"
DATABASE_URL = "database.url (--database-url, TENURE_DATABASE_URL)"
BLOBS_URL = "blobs.url (--blobs-url, TENURE_BLOBS_URL)"


def database_setting(settings: Settings) -> str:
    """The setting that says where the SQLite file lies: data_dir, unless database.url says something else."""
    own = sqlite_path(settings) != Path(settings.server.data_dir) / "tenure.db"
    return DATABASE_URL if own else DATA_DIR


def prove_database(settings: Settings) -> None:
    """Make the SQLite file's folder if there is none and prove that both can be written; nothing on Postgres.

    StorageUnavailable. Called before the file is open: closing it would drop SQLite's locks.
    """
    path = sqlite_path(settings)
    if path is None:
        return
    try:
        _prove_folder(path.parent)
        if path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise StorageUnavailable(refusal(path, error, database_setting(settings))) from error


def foresee_database(settings: Settings) -> Path | None:
    """The SQLite file that would be made, None where it is there or is none. Changes nothing.

    StorageUnavailable where what is there would not let it be made or written, as far as one can see.
    """
    path = sqlite_path(settings)
    if path is None:
        return None
    nearest = next(place for place in (path, *path.parents) if os.path.lexists(place))
    there = nearest == path
    if os.path.isdir(nearest) == there:
        number = errno.EISDIR if there else errno.ENOTDIR
    elif os.statvfs(nearest).f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif not os.access(nearest, os.W_OK if there else os.W_OK | os.X_OK):
        number = errno.EACCES
    else:
        return None if there else path
    raise StorageUnavailable(refusal(path, OSError(number, os.strerror(number)), database_setting(settings)))


def prove_blobs(settings: Settings) -> None:
    """Make the folder of the blobs if there is none and prove that it can be written; nothing on S3.

    StorageUnavailable.
    """
    if not settings.blobs.url.startswith("file:"):
        return
    folder = folder_from_url(settings.blobs.url)
    try:
        _prove_folder(folder)
    except OSError as error:
        own = folder != Path(settings.server.data_dir) / "blobs"
        raise StorageUnavailable(refusal(folder, error, BLOBS_URL if own else DATA_DIR)) from error


def refusal(place: Path, error: OSError, setting: str) -> str:
    """One sentence: what cannot be used, why, and what to do."""
    why, remedy = _cause(place, error)
    return f"{place} cannot be used: {why}; {remedy}name another place with {setting}"


def _cause(place: Path, error: OSError) -> tuple[str, str]:
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return f"user {os.geteuid()} may not write there", "give that user the right to, or "
        case errno.EROFS:
            return "the file system is read-only", "mount it writable, or "
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full", "free some space, or "
        case errno.EISDIR:
            return "it is a folder where a file is needed", ""
        case errno.EEXIST | errno.ENOTDIR:
            above = (*reversed(place.parents), place)
            found = next((one for one in above if os.path.lexists(one) and not os.path.isdir(one)), place)
            return f"{'it' if found == place else found} is not a folder", "move it away, or "
        case _:
            return error.strerror or str(error), ""


def _prove_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
