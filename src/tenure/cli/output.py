"""What commands print: results on stdout as a table, JSON or names; everything said beside them on stderr."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tenure.core.units import format_size

Format = Literal["table", "json", "name"]
#: a heading, and how to find its text in an item
Column = tuple[str, Callable[[Any], str]]

#: wide enough that nothing is cut or wrapped where no terminal says how wide it is
_PIPE_WIDTH = 10_000


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Where:
    """Which registry to ask, and how to print what it says."""

    server: Annotated[
        str, Parameter(env_var="TENURE_SERVER", help="Address of the registry; http://user:password@host signs in.")
    ] = "http://127.0.0.1:5000"
    output: Annotated[Format, Parameter(name=["--output", "-o"], help="How to print.")] = "table"


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Care:
    """How careful to be with a change."""

    dry_run: Annotated[bool, Parameter(negative="", help="Say what would happen and change nothing.")] = False
    yes: Annotated[bool, Parameter(negative="", help="Do not ask before something is destroyed.")] = False


class WrongUsage(Exception):
    """What was asked for makes no sense; the sentence says why."""


HERE = Where()
CAREFUL = Care()


def print_list(items: Sequence[Any], columns: Sequence[Column], name: Callable[[Any], str], form: Format) -> None:
    """One line an item, headed by the columns; a JSON array; or the names alone."""
    if form == "json":
        _print_json(list(items))
    elif form == "name":
        for item in items:
            print(name(item))
    else:
        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        for place, (heading, _) in enumerate(columns):
            # On a narrow terminal names are folded and never cut: people copy them.
            table.add_column(heading, no_wrap=place > 0, overflow="fold")
        for item in items:
            table.add_row(*(text(item) for _, text in columns))
        if items:
            _console().print(table, markup=False, highlight=False)


def print_one(item: Any, lines: Sequence[tuple[str, str]], name: str, form: Format) -> None:
    """One thing: a line for each of its properties; a JSON object; or its name alone."""
    if form == "json":
        _print_json(item)
    elif form == "name":
        print(name)
    else:
        table = Table(box=None, pad_edge=False, show_header=False, show_edge=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for heading, text in lines:
            table.add_row(heading, text)
        _console().print(table, markup=False, highlight=False)


def note(text: str) -> None:
    """Something said beside the result."""
    print(text, file=sys.stderr)


def confirmed(question: str, care: Care) -> bool:
    """Whether something may be destroyed: by --yes, or by a person at a terminal. WrongUsage without either."""
    if care.yes or care.dry_run:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise WrongUsage(
            f"{question} Nobody is here to ask: add --yes to do it, or --dry-run to see what would happen."
        )
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    note("Nothing was changed.")
    return False


def short_time(text: str | None) -> str:
    """`2026-01-31 12:00`, UTC."""
    return f"{text[:10]} {text[11:16]}" if text else "-"


def short_digest(text: str | None) -> str:
    """`sha256:0123456789ab`."""
    if not text:
        return "-"
    algorithm, _, encoded = text.partition(":")
    return f"{algorithm}:{encoded[:12]}"


def count(number: int, noun: str) -> str:
    """`1 tag`, `2 tags`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(value: int) -> str:
    return format_size(value)


def _print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _console() -> Console:
    # rich leaves out colours for pipes and for NO_COLOR by itself.
    terminal = sys.stdout.isatty()
    return Console(file=sys.stdout, width=None if terminal else _PIPE_WIDTH, soft_wrap=False)
