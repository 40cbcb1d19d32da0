"""`tenure check` and `tenure config check`: what is configured, and whether it works."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from cyclopts import App

from tenure.cli.options import NO_FLAGS, Flags, settings
from tenure.config.load import Loaded
from tenure.config.places import prove_blobs, prove_database
from tenure.config.tree import Settings
from tenure.config.values import hide_password, show
from tenure.core.errors import TenureError
from tenure.obs import log
from tenure.obs.log import scrub
from tenure.storage.blobs.opening import open_driver
from tenure.storage.meta.database import Database
from tenure.storage.meta.engine import open_database
from tenure.storage.meta.migrate import pending
from tenure.storage.meta.rights import prove_rights
from tenure.storage.settings import duration

config_app = App(name="config", help="Look at the configuration.")


@config_app.command(name="check")
def config_check(flags: Flags = NO_FLAGS) -> None:
    """Print every value in force as TOML, with the place it came from; secrets are hidden."""
    print(describe(settings(flags)), end="")


def describe(loaded: Loaded) -> str:
    """The settings as a TOML file whose comments say where each value came from."""
    lines = []
    for section in msgspec.structs.fields(loaded.settings):
        lines.append(f"[{section.name}]")
        values = getattr(loaded.settings, section.name)
        for key in msgspec.structs.fields(values):
            text = f"{key.name} = {show(getattr(values, key.name))}"
            lines.append(f"{text:<50} # {loaded.origins[f'{section.name}.{key.name}']}")
        lines.append("")
    return "\n".join(lines)


def check(flags: Flags = NO_FLAGS) -> int:
    """Prove by doing that database and store grant what Tenure needs; say what is missing and how to get it.

    Makes and removes a table and a few objects; changes nothing else. Exit code 1 when something is missing.
    """
    chosen = settings(flags).settings
    log.configure(chosen.log)
    return asyncio.run(_check(chosen))


async def _check(chosen: Settings) -> int:
    outcomes = [
        await _step("database", _check_database(chosen)),
        await _step("schema", _check_schema(chosen)),
        await _step("store", _check_store(chosen)),
    ]
    return 0 if all(outcomes) else 1


async def _step(name: str, work: Awaitable[str]) -> bool:
    try:
        found, good = await work, True
    except (TenureError, ValueError, OSError) as error:
        found, good = scrub(str(error)), False
    print(f"{'ok' if good else 'MISSING':<8}{name:<10}{found}")
    return good


@asynccontextmanager
async def _database(chosen: Settings) -> AsyncIterator[Database]:
    # A database that is away should be said at once, not after the patience of a server.
    prove_database(chosen)
    hurried = msgspec.structs.replace(chosen.database, retry_for=min(chosen.database.retry_for, duration("5s")))
    database = await open_database(hurried, Path(chosen.server.data_dir) / "tenure.db")
    try:
        yield database
    finally:
        await database.close()


async def _check_database(chosen: Settings) -> str:
    async with _database(chosen) as database:
        return f"{(await prove_rights(database)).product} at {hide_password(chosen.database.url)}"


async def _check_schema(chosen: Settings) -> str:
    async with _database(chosen) as database:
        missing = await pending(database)
    return f"{len(missing)} changes pending; tenure serve applies them, or tenure migrate" if missing else "current"


async def _check_store(chosen: Settings) -> str:
    prove_blobs(chosen)
    driver = await open_driver(chosen.blobs, chosen.s3, Path(chosen.server.data_dir) / "blobs")
    try:
        found = (await driver.check()).found
    finally:
        await driver.close()
    extras = ", ".join(f"{name.replace('_', ' ')} {'yes' if has else 'no'}" for name, has in found.items())
    return f"{chosen.blobs.url} ({extras})" if extras else chosen.blobs.url
