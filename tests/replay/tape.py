"""What a client and a registry said to each other, as a file: small, and without what changes from day to day.

`{c3}` stands for the hex digest of content c3, `{host}` for the registry, `{session}` for an upload's id.
Layers are a seed and a length: any bytes do, because every digest of them, and of what names them, is a
placeholder. Invariant: a placeholder is as long as what it stands for once written out, so lengths hold.
"""

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
SIZE_LIMIT = 200_000
_PLACE = re.compile(r"\{(c\d+)\}")

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Made:
    """Content by its text, which may name other content, or by a seed."""

    text: str | None = None
    seed: str = ""
    length: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of content; all of it without `end`."""

    of: str
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what the client was answered.

    `follows` is the exchange whose Location is the address, which then stands in `target` only as a query to add.
    `headers` is a place in the recording's table. Of the answer there is what clients rely on.
    """

    operation: str
    connection: int
    method: str
    target: str
    follows: int | None
    headers: int
    framing: str
    body: Piece | None
    status: int
    answer: dict[str, str]
    content: Piece | None = None
    json: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    client: str
    version: str
    date: str
    contents: dict[str, Made]
    headers: list[Lines]
    exchanges: list[Exchange]

    @property
    def name(self) -> str:
        return f"{self.client}-{self.version}"

    def operations(self) -> list[str]:
        return list(dict.fromkeys(exchange.operation for exchange in self.exchanges))


class Contents:
    """The bytes behind a recording's names, made when first asked for."""

    def __init__(self, made: Mapping[str, Made]) -> None:
        self._made = made
        self._bytes: dict[str, bytes] = {}
        self._hex: dict[str, str] = {}

    def whole(self, name: str) -> bytes:
        if name not in self._bytes:
            made = self._made[name]
            if made.text is None:
                self._bytes[name] = random.Random(made.seed).randbytes(made.length)
            else:
                self._bytes[name] = self.fill(made.text).encode()
        return self._bytes[name]

    def piece(self, piece: Piece | None) -> bytes:
        return b"" if piece is None else self.whole(piece.of)[piece.start : piece.end]

    def digest(self, name: str) -> str:
        if name not in self._hex:
            self._hex[name] = hashlib.sha256(self.whole(name)).hexdigest()
        return self._hex[name]

    def fill(self, text: str, host: str = "{host}") -> str:
        return _PLACE.sub(lambda found: self.digest(found[1]), text).replace("{host}", host)


def save(recording: Recording, folder: Path = RECORDED) -> Path:
    """One line for each exchange, so that a difference between two recordings can be read."""
    path = folder / f"{recording.name}.json"
    contents = {name: _lean(asdict(made)) for name, made in recording.contents.items()}
    blocks = [
        f'"client": {json.dumps(recording.client)}, "version": {json.dumps(recording.version)}',
        f'"date": {json.dumps(recording.date)}',
        '"contents": {\n' + ",\n".join(f"{json.dumps(n)}: {json.dumps(c)}" for n, c in contents.items()) + "\n}",
        '"headers": [\n' + ",\n".join(json.dumps(lines) for lines in recording.headers) + "\n]",
        '"exchanges": [\n' + ",\n".join(json.dumps(_lean(asdict(e))) for e in recording.exchanges) + "\n]",
    ]
    text = "{\n" + ",\n".join(blocks) + "\n}\n"
    if len(text) > SIZE_LIMIT:
        raise ValueError(f"{path.name} would have {len(text)} bytes, more than {SIZE_LIMIT}: record less")
    path.write_text(text)
    return path


@cache
def load(path: Path) -> Recording:
    told = json.loads(path.read_text())
    return Recording(
        told["client"],
        told["version"],
        told["date"],
        {name: Made(**made) for name, made in told["contents"].items()},
        [tuple((name, value) for name, value in lines) for lines in told["headers"]],
        [_exchange(each) for each in told["exchanges"]],
    )


def recordings() -> list[Path]:
    return sorted(RECORDED.glob("*.json"))


def _lean(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is as it is when nothing is said."""
    lean = {name: _lean(value) if isinstance(value, dict) else value for name, value in values.items()}
    unsaid = [("start", 0), ("length", 0)]
    return {name: value for name, value in lean.items() if value not in (None, "", {}) and (name, value) not in unsaid}


def _exchange(told: dict[str, Any]) -> Exchange:
    pieces = {name: Piece(**told[name]) if name in told else None for name in ("body", "content")}
    blank = {"target": "", "follows": None, "answer": {}, "operation": ""}
    return Exchange(**{**blank, **told, **pieces})
