"""The flags that stand for settings, shared by all commands that read the configuration."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tenure.config.load import Loaded, Value, load
from tenure.config.rules import ConfigError

_SETTINGS = {
    "listen": "server.listen",
    "external_url": "server.external_url",
    "data_dir": "server.data_dir",
    "role": "server.role",
    "database_url": "database.url",
    "blobs_url": "blobs.url",
    "open": "auth.open",
    "log_level": "log.level",
    "log_format": "log.format",
}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Flags:
    """Flags beat the environment, and the environment beats the file."""

    config: Annotated[Path | None, Parameter(help="Settings file; else tenure.toml, else /etc/tenure/tenure.toml.")] = (
        None
    )
    listen: Annotated[str | None, Parameter(help="HOST:PORT to listen on.")] = None
    external_url: Annotated[str | None, Parameter(help="The address clients use, when it is another one.")] = None
    data_dir: Annotated[str | None, Parameter(help="Folder for the SQLite database and the blobs.")] = None
    role: Annotated[Literal["all", "api", "worker"] | None, Parameter(help="What this process does.")] = None
    database_url: Annotated[str | None, Parameter(help="sqlite:///path or postgresql://user@host/name.")] = None
    blobs_url: Annotated[str | None, Parameter(help="file:///path or s3://bucket/prefix.")] = None
    open: Annotated[bool | None, Parameter(help="State that whoever reaches the address may do everything.")] = None
    log_level: Annotated[str | None, Parameter(help="debug, info, warning or error.")] = None
    log_format: Annotated[str | None, Parameter(help="auto, json or console.")] = None


NO_FLAGS = Flags()


def settings(flags: Flags) -> Loaded:
    """The settings in force; ends the process with one sentence and exit code 2 when something is wrong."""
    try:
        return load(flags.config, _given(flags))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _given(flags: Flags) -> dict[str, Value]:
    return {
        _SETTINGS[field.name]: Value(getattr(flags, field.name), f"flag --{field.name.replace('_', '-')}")
        for field in fields(flags)
        if field.name in _SETTINGS and getattr(flags, field.name) is not None
    }
