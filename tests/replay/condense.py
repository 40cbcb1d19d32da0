"""From what a proxy overheard to a recording: contents get names, what changes from day to day gets placeholders."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from helpers.recording import Overheard
from replay.tape import Exchange, Lines, Made, Piece, Recording

#: the headers of answers that some client reads to decide what it does next
RELIED_ON = (
    "Content-Type", "Content-Length", "Content-Range", "Range", "Location", "Docker-Content-Digest",
    "Docker-Upload-UUID", "Docker-Distribution-Api-Version", "ETag", "Accept-Ranges", "Link", "OCI-Subject",
    "OCI-Filters-Applied", "OCI-Chunk-Min-Length", "OCI-Chunk-Max-Length", "WWW-Authenticate", "Retry-After",
    "Cache-Control",
)  # fmt: skip
#: they differ from run to run and mean nothing to a registry
_VOLATILE = frozenset({"host", "traceparent", "date"})
_TEXT_LIMIT = 16 << 10
_HEX = re.compile(r"[0-9a-f]{64}")
_UPLOAD = re.compile(r"(/blobs/uploads/)[^/?#]+")


@dataclass(slots=True)
class _Session:
    taken: bytearray = field(default_factory=bytearray)
    content: str = ""


def condense(client: str, version: str, heard: Sequence[Overheard], host: str) -> Recording:
    """`host` is the registry's address as the client was told it."""
    return _Condenser(client, heard, host).recording(version)


class _Condenser:
    def __init__(self, client: str, heard: Sequence[Overheard], host: str) -> None:
        self._client = client
        self._heard = heard
        self._host = host
        #: hex digest -> name, and the bytes
        self._names: dict[str, str] = {}
        self._bytes: dict[str, bytes] = {}
        self._pieces: list[Piece | None] = []
        self._headers: dict[Lines, int] = {}

    def recording(self, version: str) -> Recording:
        self._find_contents()
        exchanges = [self._exchange(number, one) for number, one in enumerate(self._heard)]
        made = {name: self._made(name, content) for name, content in self._bytes.items()}
        today = date.today().isoformat()
        return Recording(self._client, version, today, made, list(self._headers), exchanges)

    def _name(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._names:
            self._names[digest] = f"c{len(self._names) + 1}"
            self._bytes[self._names[digest]] = content
        return self._names[digest]

    def _find_contents(self) -> None:
        """Names for all bodies, whole uploads first: a chunk is a stretch of what was uploaded."""
        sessions: dict[str, _Session] = {}
        for one in self._heard:
            path = one.target.partition("?")[0]
            location = one.answered("Location")
            if one.method == "POST" and one.status == 202 and location:
                sessions[location] = _Session()
            elif one.method == "PATCH" and one.status == 202 and path in sessions:
                sessions[path].taken += one.body
            elif one.method == "PUT" and path in sessions and one.status == 201:
                sessions[path].content = self._name(bytes(sessions[path].taken) + one.body)
            elif one.method == "POST" and one.status == 201 and one.body:
                self._name(one.body)
        offsets = dict.fromkeys(sessions, 0)
        for one in self._heard:
            path = one.target.partition("?")[0]
            if one.body and path in sessions and sessions[path].content:
                start = offsets[path]
                self._pieces.append(self._piece(one.body, sessions[path].content, start))
                offsets[path] = start + len(one.body) if one.status < 300 else start
            else:
                self._pieces.append(Piece(self._name(one.body)) if one.body else None)

    def _piece(self, body: bytes, content: str, start: int) -> Piece:
        whole = self._bytes[content]
        if whole[start : start + len(body)] != body:
            return Piece(self._name(body))
        return Piece(content) if len(body) == len(whole) else Piece(content, start, start + len(body))

    def _made(self, name: str, content: bytes) -> Made:
        try:
            text = content.decode()
            if len(content) <= _TEXT_LIMIT and (not content or text[0] in "{["):
                return Made(text=self._placed(text))
        except UnicodeDecodeError:
            pass
        return Made(seed=f"{self._client}-{name}", length=len(content))

    def _placed(self, text: str) -> str:
        return _HEX.sub(lambda found: f"{{{self._names[found[0]]}}}" if found[0] in self._names else found[0], text)

    def _line(self, text: str) -> str:
        return self._placed(text).replace(self._host, "{host}").replace(self._host.replace(":", "%3A"), "{host}")

    def _exchange(self, number: int, one: Overheard) -> Exchange:
        headers = tuple((name, self._line(value)) for name, value in one.headers if name.lower() not in _VOLATILE)
        path, _, query = one.target.partition("?")
        follows = self._location_of(number, path)
        target = query if follows is not None else one.target
        content, told = self._answer_body(one)
        return Exchange(
            one.operation, one.connection, one.method, self._line(target), follows,
            self._headers.setdefault(headers, len(self._headers)), one.framing, self._pieces[number], one.status,
            self._relied_on(one), content, told,
        )  # fmt: skip

    def _location_of(self, number: int, path: str) -> int | None:
        """The last exchange before this one whose Location the client took its address from."""
        if "/blobs/uploads/" not in path or path.endswith("/uploads/"):
            return None
        for earlier in range(number - 1, -1, -1):
            if (self._heard[earlier].answered("Location") or "").partition("?")[0] == path:
                return earlier
        return None

    def _relied_on(self, one: Overheard) -> dict[str, str]:
        kept: dict[str, str] = {}
        if not one.target.startswith("/v2"):
            return kept  # asked of older or other registries; that there is nothing is all that counts
        for name in RELIED_ON:
            value = one.answered(name)
            if value is None or (name == "Content-Length" and one.status >= 400):
                continue  # sentences may be written anew; their length is nobody's business
            if name == "Docker-Upload-UUID":
                value = "{session}"
            kept[name] = self._placed(without_session(value))
        return kept

    def _answer_body(self, one: Overheard) -> tuple[Piece | None, str | None]:
        body = one.answer_body
        if not body or not one.target.startswith("/v2"):
            return None, None
        digest = hashlib.sha256(body).hexdigest()
        if digest in self._names:
            return Piece(self._names[digest]), None
        ranged = re.match(r"bytes (\d+)-(\d+)/", one.answered("Content-Range") or "")
        of = _HEX.search(one.target)
        if one.status == 206 and ranged and of and of[0] in self._names:
            return Piece(self._names[of[0]], int(ranged[1]), int(ranged[2]) + 1), None
        return None, self._placed(told(body))


def without_session(value: str) -> str:
    return _UPLOAD.sub(r"\1{session}", value)


def told(body: bytes) -> str:
    """A JSON answer in one way of writing; of an error its codes, since sentences may be written anew."""
    document = json.loads(body)
    if isinstance(document, dict) and isinstance(document.get("errors"), list):
        document = {"errors": [error.get("code") for error in document["errors"]]}
    return json.dumps(document, sort_keys=True)
