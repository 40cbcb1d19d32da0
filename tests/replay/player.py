"""Plays a recording against a registry without its client: the same requests, following the Locations that come."""

import asyncio
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from helpers.recording import CHUNKED, LENGTH, framed, parse_head, read_body
from helpers.wire import connect
from replay.condense import told, without_session
from replay.tape import Contents, Exchange, Recording

#: seconds for one answer; a registry that takes longer hangs
PATIENCE = 30.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer; `missing` says why there is none."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    missing: str = ""


async def play(base: str, recording: Recording) -> list[Answered]:
    """All exchanges one after the other, on as many connections as the client had. One answer for each."""
    contents = Contents(recording.contents)
    open_: dict[int, Streams] = {}
    answers: list[Answered] = []
    try:
        for exchange in recording.exchanges:
            request = written(recording, exchange, contents, base, answers)
            if request is None:
                answers.append(Answered(0, missing=f"exchange {exchange.follows} gave no Location to follow"))
                continue
            async with asyncio.timeout(PATIENCE):
                answers.append(await _exchange(base, exchange, request, open_))
    finally:
        for _, writer in open_.values():
            writer.close()
    return answers


def written(
    recording: Recording, exchange: Exchange, contents: Contents, base: str, answers: list[Answered]
) -> bytes | None:
    """The request as it goes over the wire; None when it would follow a Location that never came."""
    host = urlsplit(base).netloc
    target = contents.fill(exchange.target, host)
    if exchange.follows is not None:
        location = answers[exchange.follows].headers.get("location")
        if location is None:
            return None
        parts = urlsplit(location)
        query = "&".join(filter(None, (parts.query, target)))
        target = parts.path + (f"?{query}" if query else "")
    body = contents.piece(exchange.body)
    headers = [("Host", host), *recording.headers[exchange.headers]]
    if exchange.framing == LENGTH:
        headers.append(("Content-Length", str(len(body))))
    elif exchange.framing == CHUNKED:
        headers.append(("Transfer-Encoding", "chunked"))
    lines = [f"{exchange.method} {target} HTTP/1.1", *(f"{k}: {contents.fill(v, host)}" for k, v in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + framed(exchange.framing, body)


async def _exchange(base: str, exchange: Exchange, request: bytes, open_: dict[int, Streams]) -> Answered:
    if exchange.connection not in open_:
        open_[exchange.connection] = await connect(base)
    reader, writer = open_[exchange.connection]
    writer.write(request)
    await writer.drain()
    answer, ends = await hear(reader, exchange.method)
    asked = any(line.lower() == b"connection: close" for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n"))
    if ends or asked:
        del open_[exchange.connection]
        writer.close()
    return answer


async def hear(reader: asyncio.StreamReader, method: str) -> tuple[Answered, bool]:
    """An answer however it is framed, and whether the connection ends with it."""
    raw = b"HTTP/1.1 100"
    while raw.startswith(b"HTTP/1.1 100"):
        raw = await reader.readuntil(b"\r\n\r\n")
    start, lines = parse_head(raw)
    status = int(start.split(" ", 2)[1])
    headers: dict[str, str] = {}
    for name, value in lines:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    body = b""
    if method != "HEAD" and status not in (204, 304):
        body = (await read_body(reader, lines))[1]
    return Answered(status, headers, body), headers.get("connection", "").lower() == "close"


def differences(recording: Recording, answers: list[Answered]) -> list[str]:
    """What the registry answered otherwise than the recording has it."""
    contents = Contents(recording.contents)
    found = []
    for number, (exchange, answer) in enumerate(zip(recording.exchanges, answers, strict=True)):
        wrong = answer.missing or "; ".join(_wrong(exchange, answer, contents))
        if wrong:
            found.append(f"{number} {exchange.operation}: {exchange.method} {exchange.target}: {wrong}")
    return found


def _wrong(exchange: Exchange, answer: Answered, contents: Contents) -> list[str]:
    if answer.status != exchange.status:
        return [f"{answer.status} instead of {exchange.status} {answer.body[:300]!r}"]
    wrong = []
    for name, recorded in exchange.answer.items():
        heard = answer.headers.get(name.lower())
        if heard is not None:
            heard = "{session}" if name == "Docker-Upload-UUID" and heard else without_session(heard)
        if heard != contents.fill(recorded):
            wrong.append(f"{name} {heard!r} instead of {recorded!r}")
    if exchange.content is not None and answer.body != contents.piece(exchange.content):
        wrong.append(f"{len(answer.body)} other bytes than {exchange.content}")
    if exchange.json is not None and json.loads(told(answer.body)) != json.loads(contents.fill(exchange.json)):
        wrong.append(f"{answer.body[:300]!r} instead of {exchange.json}")
    return wrong
