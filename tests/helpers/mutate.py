"""Requests as clients write them, and the many ways to write them wrongly. Pure: bytes and a source of chance.

A `Shot` is one request. Mutators change one thing each and note what. `whole` is the promise that a server can
tell where the request ends: then it owes an answer. `{location}` stands for an address that only a run knows.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from helpers.recording import CHUNKED, LENGTH, NONE, Lines, framed

LOCATION = "{location}"


@dataclass(frozen=True, slots=True)
class Shot:
    """One request, nearly written. What is set to None or empty is as a client would have it."""

    method: str
    target: str
    headers: Lines
    framing: str = NONE
    body: bytes = b""
    #: the number of the request whose Location stands for `{location}`
    follows: int | None = None
    number: int = 0
    line: bytes | None = None
    #: header lines after the others, as bytes
    more: bytes = b""
    #: instead of the framing's own header lines
    lie: bytes | None = None
    #: the body as it goes over the wire, where that is not the framing's way
    wire: bytes | None = None
    #: so many bytes are sent, then the connection is reset
    cut: int | None = None
    #: sent in so many pieces, with pauses
    pieces: int = 1
    #: written together with the request before it
    together: bool = False
    #: sent twice at once, on two connections
    twin: bool = False
    whole: bool = True
    notes: tuple[str, ...] = ()

    def noted(self, note: str, **changes: Any) -> "Shot":
        return replace(self, notes=(*self.notes, note), **changes)

    def written(self, host: str, location: str) -> bytes:
        """What goes over the wire; `location` is what `{location}` stands for."""
        target = self.target.replace(LOCATION, location)
        line = self.line if self.line is not None else f"{self.method} {target} HTTP/1.1".encode("latin-1", "replace")
        lines = [f"{name}: {value}".encode("latin-1", "replace") for name, value in self.headers]
        if not any(name.lower() == "host" for name, _ in self.headers):
            lines.insert(0, f"Host: {host}".encode())
        framing = self.lie
        if framing is None:
            framing = {
                NONE: b"",
                LENGTH: b"Content-Length: %d\r\n" % len(self.body),
                CHUNKED: b"Transfer-Encoding: chunked\r\n",
            }[self.framing]
        body = self.wire if self.wire is not None else framed(self.framing, self.body)
        return b"\r\n".join([line, *lines]) + b"\r\n" + framing + self.more + b"\r\n" + body

    @property
    def heads(self) -> bool:
        """Whether the answer has no body."""
        return (self.line or self.method.encode("latin-1", "replace")).startswith(b"HEAD")


Mutator = Callable[[random.Random, Shot], Shot]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "M" * 300)
BROKEN_METHODS = ("CONNECT", "", "G ET", "GET\t", "\x00", "(", "GET:")
ZEROS = "0" * 64
SEGMENTS = (
    "..", ".", "", "%2e%2e", "%2E", "%00", "%ff", "%", "%zz", "%c3%28", "a" * 300, "A", "_catalog", "uploads",
    "blobs", "manifests", "referrers", "tags", "list", "v2", "api", f"sha256:{ZEROS}", f"sha256%3A{ZEROS}",
    f"sha512:{ZEROS}", "sha256:", "sha256:zz", f"sha256:{ZEROS.upper().replace('0', 'A')}",
    "md5:d41d8cd98f00b204e9800998ecf8427e", "a%2Fb", "\xe9", "\xff\xfe", "-", "_", "a.", "a__b", "a___b", LOCATION,
    "latest", "1" * 129, ";", "a;b", "*", "'", '"',
)  # fmt: skip
QUERIES = (
    "n=0", "n=-1", "n=abc", "n=99999999999999999999", "n=1", "last=%00", "last=%ff", "last=zzz", "last=", "digest=",
    f"digest=sha256:{ZEROS}", "digest=sha256:zz", f"digest=sha512:{ZEROS}{ZEROS}", "digest=%00", "mount=", "mount=x",
    f"mount=sha256:{ZEROS}", "from=", "from=..%2F..", "from=%ff", "digest-algorithm=sha512", "digest-algorithm=md5",
    "artifactType=%00", "artifactType=a%2Fb", "ns=docker.io", "&&&", "=", "a=b=c", "%=%", "?", "a" * 3000, "\xff=\xfe",
    "_state=x", "tag=a", "tag=%00", "n=1&n=2", "next=" + "x" * 200,
)  # fmt: skip
HEADERS = (
    ("Range", "bytes=0-0"), ("Range", "bytes=-1"), ("Range", "bytes=5-2"), ("Range", "bytes=0-1,3-4,6-"),
    ("Range", "bytes=" + ",".join(f"{n}-{n}" for n in range(40))), ("Range", "bytes=99999999999999999999-"),
    ("Range", "lines=1-2"), ("Range", "bytes="), ("If-None-Match", "*"), ("If-None-Match", '"x", W/"y"'),
    ("If-Match", '"x"'), ("If-Range", '"x"'), ("If-Modified-Since", "yesterday"), ("Accept", ""), ("Accept", "*/*;q=0"),
    ("Accept", "application/json"), ("Accept", ",,,;;="), ("Expect", "100-continue"), ("Expect", "the-unexpected"),
    ("Connection", "close"), ("Connection", "keep-alive, x"), ("Content-Encoding", "gzip"), ("Content-Type", ""),
    ("Content-Type", "application/json"), ("Content-Type", "text/plain; charset=\xff"), ("Content-Type", "a" * 5000),
    ("Content-Type", "application/vnd.oci.image.index.v1+json; x=y"), ("X-Forwarded-For", "::1, garbage, %%"),
    ("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "a b"), ("Forwarded", "for=;host=\x80"),
    ("Authorization", "Basic %%%"), ("Authorization", "Bearer " + "x" * 9000), ("X-Request-Id", "\xff" * 200),
    ("User-Agent", "\xf0\x9f" * 900), ("OCI-Chunk-Min-Length", "-1"), ("Trailer", "X"), ("TE", "trailers"),
    ("Host", ""), ("Host", "a b"), ("Host", "[::1"), ("Host", "x" * 5000), ("Cookie", "=;=;="), ("Origin", "null"),
    ("Idempotency-Key", "k" * 300), ("Upgrade-Insecure-Requests", "1"), ("Date", "never"), ("Link", "<>; rel="),
)  # fmt: skip
CONTENT_RANGES = (
    "0-0", "5-9", "9-5", "x", "", "-", "0-", "-5", "bytes 0-9/10", "bytes */5", "0-99999999999999999999", "0-9/5",
    "1-1", "0-149999", " 0 - 9 ", "0-9,10-19", "\xff",
)  # fmt: skip
LENGTHS = (
    b"Content-Length: -1", b"Content-Length: abc", b"Content-Length: +5", b"Content-Length: 5, 5",
    b"Content-Length:", b"Content-Length: 99999999999999999999999", b"Content-Length: 9223372036854775808",
    b"Content-Length: 0x10", b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Content-Length: 1_0", b"Content-Length: 0",
    b"Content-Length : 5", b" Content-Length: 5", b"Content-Length: 1048577",
)  # fmt: skip
CODINGS = (
    b"Transfer-Encoding: gzip", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip",
    b"transfer-encoding:CHUNKED",
)  # fmt: skip
CHUNKS = (
    b"zz\r\nhello\r\n0\r\n\r\n", b"5\r\nhello", b"5\r\nhello\r\n", b"5;ext=1\r\nhello\r\n0\r\n\r\n",
    b"-1\r\nx\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5\nhello\n0\n\n", b"0\r\nTrailer: x\r\n\r\n", b"0\r\n",
    b"FFFFFFFFFFFFFFFFFF\r\nx", b"5\r\nhello\r\n0\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
    b"00000005\r\nhello\r\n0\r\n\r\n", b"", b"\r\n\r\n", b"5" + b";" * 20000 + b"\r\nhello\r\n0\r\n\r\n",
)  # fmt: skip
NOISE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x00" * 200, b"GET /v2/\r\n\r\n", b"GET  /v2/  HTTP/1.1\r\n\r\n", b"GET /v2/ HTTP/1.1\nHost: x\n\n",
    b"\r\n\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[::1/v2/ HTTP/1.1\r\nHost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/ HTTP/9.9\r\nHost: x\r\n\r\n", b"GET v2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET " + b"/" * 70000 + b" HTTP/1.1\r\n\r\n", b"GET /v2/ HTTP/1.1\r\n" + b"a: b\r\n" * 3000 + b"\r\n",
    b"GET /v2/ HTTP/1.1\r\n: x\r\n\r\n", b"GET /v2/ HTTP/1.1\r\nA\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nbytes",
    b"GET /v2/#f HTTP/1.1\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello",
    b"GET //v2/ HTTP/1.1\r\n\r\n",
    b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://user@host:99999/v2/ HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v2/?\xff\x00 HTTP/1.1\r\n\r\n",
    b"GET \xff HTTP/1.1\r\n\r\n",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**63, 2**70, "", "x" * 300, "\x00", "\ud800", "\uffff", [], {}, [[]], [None], {"": ""},
    f"sha256:{ZEROS}", "sha256:zz", f"sha512:{ZEROS}{ZEROS}", "application/vnd.oci.image.index.v1+json", "a b", 10**400,
    "application/vnd.docker.distribution.manifest.v1+json", 1, 2, {"digest": f"sha256:{ZEROS}"}, [{"mediaType": 5}],
)  # fmt: skip
#: of a manifest, where they are mostly absent
FIELDS = ("subject", "annotations", "artifactType", "urls", "data", "")


def method(rng: random.Random, shot: Shot) -> Shot:
    if rng.random() < 0.2:
        return shot.noted("broken method", method=rng.choice(BROKEN_METHODS), whole=False)
    return shot.noted("another method", method=rng.choice(METHODS))


def segment(rng: random.Random, shot: Shot) -> Shot:
    path, mark, query = shot.target.partition("?")
    parts = path.split("/")
    at = rng.randrange(len(parts))
    action = rng.randrange(4)
    if action == 0 and len(parts) > 2:
        del parts[at]
    elif action == 1:
        parts.insert(at, parts[at])
    elif action == 2:
        parts.insert(at, rng.choice(SEGMENTS))
    else:
        parts[at] = rng.choice(SEGMENTS)
    return shot.noted("path", target="/".join(parts) + mark + query, whole=shot.whole and path[:1] in ("/", "{"))


def percent(rng: random.Random, shot: Shot) -> Shot:
    """A character or two written as %XX, perhaps the % as well."""
    path, mark, query = shot.target.partition("?")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(1, len(path)) if len(path) > 1 else 0
        if path[at : at + 1] in ("", "{", "}") or LOCATION in path[max(0, at - 10) : at + 10]:
            path += "%20"
        else:
            written = f"%{ord(path[at]):02{rng.choice('xX')}}"
            path = path[:at] + written.replace("%", rng.choice(["%", "%25"])) + path[at + 1 :]
    return shot.noted("percent", target=path + mark + query)


def query(rng: random.Random, shot: Shot) -> Shot:
    path, _, text = shot.target.partition("?")
    pairs = text.split("&") if text else []
    action = rng.randrange(5)
    if action == 0 and pairs:
        del pairs[rng.randrange(len(pairs))]
    elif action == 1 and pairs:
        pairs.append(rng.choice(pairs))
    elif action == 2 and pairs:
        at = rng.randrange(len(pairs))
        pairs[at] = pairs[at][: rng.randrange(len(pairs[at]) + 1)] + rng.choice(["", "%", "%00", "\xff", "x"])
    elif action == 3:
        pairs += [f"p{n}={n}" for n in range(rng.choice([3, 250]))]
    else:
        pairs.insert(rng.randint(0, len(pairs)), rng.choice(QUERIES))
    return shot.noted("query", target=path + "?" + "&".join(pairs))


def header(rng: random.Random, shot: Shot) -> Shot:
    lines = list(shot.headers)
    action = rng.randrange(6)
    if not lines or action == 0:
        lines.insert(rng.randint(0, len(lines)), rng.choice(HEADERS))
        return shot.noted(f"header {lines[-1][0]}", headers=tuple(lines))
    at = rng.randrange(len(lines))
    name, value = lines[at]
    if action == 1:
        del lines[at]
    elif action == 2:
        lines.append(lines[at])
    elif action == 3:
        lines[at] = (name, "".join(chr(rng.randint(0x21, 0xFF)) for _ in range(len(value) or 5)))
    elif action == 4:
        lines[at] = (name, value + "x" * rng.choice([9000, 70_000]))
    else:
        lines += [(f"X-More-{n}", "y") for n in range(rng.choice([20, 120, 40_000 // 20]))]
    return shot.noted("header", headers=tuple(lines))


def more_header(rng: random.Random, shot: Shot) -> Shot:
    added = rng.choice(HEADERS)
    kept = tuple(line for line in shot.headers if line[0].lower() != added[0].lower())
    return shot.noted(f"with {added[0]}", headers=(*kept, added))


def raw_header(rng: random.Random, shot: Shot) -> Shot:
    """Lines that are no headers."""
    lines = (
        b"No colon here", b": no name", b"Bad Name: x", b"X: a\x00b", b"X: a\rb", b" folded: x", b"X\xff: y",
        b"A: " + bytes(40), b"Connection: Upgrade\r\nUpgrade: websocket", b"X:" + b" " * 66_000, b"\tX: y",
        b"X: y\nZ: w", b"()<>@: x",
    )  # fmt: skip
    return shot.noted("raw header", more=rng.choice(lines) + b"\r\n", whole=False)


def content_range(rng: random.Random, shot: Shot) -> Shot:
    value = rng.choice((*CONTENT_RANGES, f"0-{len(shot.body) - 1}", f"1-{len(shot.body)}"))
    return shot.noted("Content-Range", headers=(*shot.headers, ("Content-Range", value)))


def length_lie(rng: random.Random, shot: Shot) -> Shot:
    near = b"Content-Length: %d" % max(0, len(shot.body) + rng.choice([-1, 1, -7, 1000, 70_000]))
    lie = rng.choice((*LENGTHS, near, near, near))
    return shot.noted(lie.decode()[:60], lie=lie + b"\r\n", wire=shot.body, whole=False)


def coding_lie(rng: random.Random, shot: Shot) -> Shot:
    if rng.random() < 0.5:
        wire = framed(CHUNKED, shot.body) if rng.random() < 0.5 else shot.body
        return shot.noted("coding", lie=rng.choice(CODINGS) + b"\r\n", wire=wire, whole=False)
    return shot.noted("chunks", lie=b"Transfer-Encoding: chunked\r\n", wire=rng.choice(CHUNKS), whole=False)


def body(rng: random.Random, shot: Shot) -> Shot:
    """Shorter, longer or other bytes, told truly; or not."""
    content = bytearray(shot.body)
    action = rng.randrange(4)
    if action == 0:
        content = content[: rng.randrange(len(content) + 1)]
    elif action == 1:
        content += rng.randbytes(rng.choice([1, 100, 70_000]))
    elif action == 2 and content:
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    else:
        content = bytearray(rng.randbytes(rng.choice([0, 1, 40])))
    framing = rng.choice([LENGTH, CHUNKED])
    return shot.noted("body", body=bytes(content), framing=framing)


def document(rng: random.Random, shot: Shot) -> Shot:
    """The JSON of a manifest with something else in it; any bytes where it is none."""
    try:
        made = json.loads(shot.body)
    except (ValueError, RecursionError):
        return body(rng, shot)
    if rng.random() < 0.1:
        nested = b"[" * 5000 if rng.random() < 0.5 else b'{"a":' * 3000
        return shot.noted("deep JSON", body=nested, framing=LENGTH)
    for _ in range(rng.randint(1, 3)):
        made = _changed(rng, made)
    text = json.dumps(made, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1:
        text = text.replace("{", '{"mediaType": "x", "digest": 1, ', 1)
    return shot.noted("JSON", body=text.encode("utf-8", "surrogatepass"), framing=LENGTH)


def _changed(rng: random.Random, value: Any) -> Any:
    """A copy with one place changed, deeper or here."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: one for name, one in value.items() if name != key}
        if rng.random() < 0.1:
            return {
                **value,
                rng.choice(["subject", "annotations", "artifactType", "urls", "data", ""]): rng.choice(VALUES),
            }
        return {**value, key: _changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value * rng.choice([2, 500])
        return [*value[:at], _changed(rng, value[at]), *value[at + 1 :]]
    return rng.choice(VALUES)


def cut(rng: random.Random, shot: Shot) -> Shot:
    return shot.noted("cut", cut=rng.randrange(1, 400 + len(shot.body)), whole=False)


def pieces(rng: random.Random, shot: Shot) -> Shot:
    return shot.noted("in pieces", pieces=rng.randint(2, 6))


def together(rng: random.Random, shot: Shot) -> Shot:
    return shot.noted("pipelined", together=True)


def twin(rng: random.Random, shot: Shot) -> Shot:
    return shot.noted("twice at once", twin=True)


def noise(rng: random.Random, shot: Shot) -> Shot:
    """Something else altogether."""
    line, _, rest = rng.choice(NOISE).partition(b"\r\n")
    return shot.noted("noise", line=line, headers=(), lie=b"", more=rest, wire=b"", whole=False)


def version(rng: random.Random, shot: Shot) -> Shot:
    written = rng.choice(("HTTP/1.0", "HTTP/0.9", "HTTP/2", "HTTP/1.1 ", "http/1.1", "HTTP/1.10", ""))
    line = f"{shot.method} {shot.target} {written}".encode("latin-1", "replace").replace(b"{location}", b"/v2/")
    return shot.noted(f"version {written!r}", line=line, whole=False)


MUTATORS: tuple[Mutator, ...] = (
    method, segment, segment, percent, query, query, header, header, more_header, more_header, raw_header,
    content_range, length_lie, coding_lie, body, body, document, document, document, cut, cut, pieces, together,
    together, twin, noise, version,
)  # fmt: skip


def mutated(rng: random.Random, shot: Shot) -> Shot:
    """One to three mutators, one after the other."""
    for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
        shot = rng.choice(MUTATORS)(rng, shot)
    return shot


def reordered(rng: random.Random, shots: list[Shot]) -> list[Shot]:
    """Sometimes a request twice, not at all, or before its turn."""
    shots = list(shots)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        at = rng.randrange(len(shots))
        action = rng.randrange(3)
        if action == 0:
            shots.insert(at, shots[at].noted("repeated"))
        elif action == 1 and len(shots) > 1:
            del shots[at]
        else:
            shots.insert(rng.randrange(len(shots)), shots.pop(at).noted("out of turn"))
    return shots
