"""docs/configuration.md out of the structs: `python -m tenure.config.document docs/configuration.md`."""

import inspect
import sys
import typing
from pathlib import Path
from typing import Any, Literal

import msgspec

from tenure.config.load import HOLDS_PASSWORD
from tenure.config.tree import Settings
from tenure.config.values import show
from tenure.storage.settings import Duration, Secret, Size

_HEAD = """\
# Configuration

Made from the code by `make docs`; edit the comments there.

Settings come from a TOML file, from the environment and from flags. Flags beat the environment, the
environment beats the file. The file is the one named by `--config`, else `tenure.toml` in the working
directory, else `/etc/tenure/tenure.toml`; without any file the defaults hold.

A setting `key` of section `[section]` is `TENURE_SECTION_KEY` in the environment. Where a value holds a
secret, `TENURE_SECTION_KEY_FILE` names a file that holds it. Lists are separated by commas there. What is not
known, in the file or among the `TENURE_*` variables, is an error that names the nearest key there is.

`tenure config check` prints the values in force, each with the place it came from, secrets hidden.
Durations are written `90s`, `36h`, `7d`; sizes `4096`, `8MiB`, `10GB`.
"""
_TYPES = {str: "text", int: "number", bool: "true, false", Duration: "duration", Size: "size", Secret: "secret"}


def render() -> str:
    """The whole page."""
    return _HEAD + "".join(_section(section.name, section.type) for section in msgspec.structs.fields(Settings))


def comments(struct: Any) -> dict[str, str]:
    """The `#:` lines above each key of a struct, as one sentence."""
    found: dict[str, str] = {}
    pending: list[str] = []
    for line in inspect.getsource(struct).splitlines():
        text = line.strip()
        if text.startswith("#: "):
            pending.append(text[3:])
        elif pending and ":" in text:
            found[text.partition(":")[0]] = " ".join(pending)
            pending = []
    return found


def _section(name: str, struct: Any) -> str:
    said = comments(struct)
    rows = [
        f"| `{key.name}` | {_type(f'{name}.{key.name}', key.type)} | `{show(key.default)}` | {_cell(said[key.name])} |"
        for key in msgspec.structs.fields(struct)
    ]
    return "\n".join([f"\n## [{name}]\n", "| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type(name: str, kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return ", ".join(word or "empty" for word in typing.get_args(kind))
    shown = _TYPES.get(kind, "list of texts")
    return f"{shown} (also `_FILE`)" if kind is Secret or name in HOLDS_PASSWORD else shown


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
