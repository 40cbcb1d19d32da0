"""`tenure serve` and `tenure migrate`."""

import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenure.app.ownership import AlreadyOwned, owned
from tenure.app.run import CannotServe, serve_until_asked
from tenure.cli.options import NO_FLAGS, Flags, settings
from tenure.config.places import database_setting, foresee_database, prove_database
from tenure.config.rules import sqlite_path
from tenure.core.errors import TenureError
from tenure.obs import log
from tenure.storage.meta.migrate import migrate as apply_migrations
from tenure.storage.meta.migrate import planned


def serve(flags: Flags = NO_FLAGS) -> int:
    """Serve the registry, by default with SQLite and a folder.

    Runs until SIGTERM or SIGINT; then running requests may finish for up to server.drain.
    """
    chosen = settings(flags).settings
    log.configure(chosen.log)
    path = sqlite_path(chosen)
    try:
        prove_database(chosen)
        with owned(path.parent, database_setting(chosen)) if path else nullcontext():
            return asyncio.run(serve_until_asked(chosen))
    except (AlreadyOwned, CannotServe, TenureError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def migrate(
    flags: Flags = NO_FLAGS,
    *,
    plan: Annotated[bool, Parameter(help="Only say what would be done; change nothing.")] = False,
) -> int:
    """Bring the database to this version's schema. `tenure serve` does the same when it starts."""
    chosen = settings(flags).settings
    new: Path | None = None
    try:
        if plan:
            new = foresee_database(chosen)
            revisions = asyncio.run(planned(chosen.database))
        else:
            prove_database(chosen)
            revisions = asyncio.run(apply_migrations(chosen.database.url, retry_for=chosen.database.retry_for))
    except TenureError as error:
        print(error, file=sys.stderr)
        return 1
    if new:
        print(f"would make {new}")
    for revision in revisions:
        print(f"{'would apply' if plan else 'applied'} {revision}")
    if not revisions:
        print("the schema is current")
    return 0
