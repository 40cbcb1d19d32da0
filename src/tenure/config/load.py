"""TOML file, `TENURE_*` environment and flags -> the settings tree, each value with the place it came from.

Flags beat the environment, the environment beats the file. What nobody knows is an error that names the
nearest key there is: a mistyped setting must not be a silently ignored one.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tenure.config.rules import ConfigError, check, resolve
from tenure.config.tree import Settings
from tenure.config.values import convert
from tenure.storage.settings import Secret

#: where a file is looked for when --config names none; the first that exists
PLACES = (Path("tenure.toml"), Path("/etc/tenure/tenure.toml"))
#: variables of the command line's client and of the tests: not settings of the server
FOREIGN = ("TENURE_SERVER", "TENURE_TEST_")
#: secrets by content rather than by type: `_FILE` works for them too
HOLDS_PASSWORD = frozenset({"database.url"})


@dataclass(frozen=True, slots=True)
class Value:
    """A raw value and where it was found: `tenure.toml`, `environment TENURE_SERVER_LISTEN`, `flag --listen`."""

    raw: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The tree and, for each `section.key`, where its value came from."""

    settings: Settings
    origins: Mapping[str, str]


def keys() -> dict[str, Any]:
    """Every `section.key` there is -> its type, in the order of the tree."""
    return {
        f"{section.name}.{key.name}": key.type
        for section in msgspec.structs.fields(Settings)
        for key in msgspec.structs.fields(section.type)
    }


def load(
    path: Path | None = None,
    flags: Mapping[str, Value] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """The settings in force. ConfigError is one sentence for the person who started the program."""
    known = keys()
    found = _from_file(path, known)
    found |= _from_environment(os.environ if environment is None else environment, known)
    found |= flags or {}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in found.items():
        section, _, key = name.partition(".")
        try:
            sections.setdefault(section, {})[key] = convert(known[name], value.raw)
        except ValueError as error:
            raise ConfigError(f"{name}: {error} (from {value.origin})") from None
    settings = Settings(
        **{
            section.name: section.type(**sections[section.name])
            for section in msgspec.structs.fields(Settings)
            if section.name in sections
        }
    )
    origins = {name: found[name].origin if name in found else "default" for name in known}
    settings = resolve(settings, os.environ if environment is None else environment)
    check(settings, origins)
    return Loaded(settings, origins)


def _from_file(path: Path | None, known: Mapping[str, Any]) -> dict[str, Value]:
    if path is None:
        path = next((place for place in PLACES if place.is_file()), None)
        if path is None:
            return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    found = {}
    names = {name.partition(".")[0] for name in known}
    for section, content in document.items():
        if section not in names:
            raise _unknown("section", f"[{section}]", f"[{_nearest(section, names)}]", str(path))
        if not isinstance(content, dict):
            raise ConfigError(f"{section} in {path} must be a section: [{section}]")
        for key, raw in content.items():
            name = f"{section}.{key}"
            if name not in known:
                in_section = [other for other in known if other.startswith(f"{section}.")]
                raise _unknown("key", name, _nearest(name, in_section), str(path))
            found[name] = Value(raw, str(path))
    return found


def _from_environment(environment: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Value]:
    variables = {"TENURE_" + name.replace(".", "_").upper(): name for name in known}
    files = {
        f"{variable}_FILE": name
        for variable, name in variables.items()
        if known[name] is Secret or name in HOLDS_PASSWORD
    }
    found: dict[str, Value] = {}
    for variable, text in environment.items():
        if not variable.startswith("TENURE_") or variable == FOREIGN[0] or variable.startswith(FOREIGN[1]):
            continue
        name = variables.get(variable) or files.get(variable)
        if name is None:
            nearest = _nearest(variable, [*variables, *files])
            raise _unknown("variable", variable, nearest, "the environment")
        if name in found:
            raise ConfigError(
                f"{variable} and {found[name].origin.removeprefix('environment ')} are both set; keep one"
            )
        found[name] = Value(_file_text(variable, text) if variable in files else text, f"environment {variable}")
    return found


def _file_text(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror} (from environment {variable})") from None


def _nearest(word: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)[0]


def _unknown(what: str, word: str, nearest: str, origin: str) -> ConfigError:
    return ConfigError(f"unknown {what} {word} in {origin}; the nearest there is: {nearest}")
