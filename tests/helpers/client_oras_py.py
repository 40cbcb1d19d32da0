"""oras-py, the library, driven by a few lines of Python in a process of their own."""

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from helpers.client import ARTIFACT, CHUNK, Client, Ref, Row
from helpers.client_place import Place

_NO_METHOD = "it has no method for it"
_COMMAND = Path(__file__).with_name("client_oras_py_command.py")


class OrasPy(Client):
    name = "oras-py"
    origin = "Python package"
    without: ClassVar[Mapping[Row, str]] = {
        Row.INDEX: "it pushes one manifest, of files",
        Row.MOUNT: "it never mounts: it sends files",
        Row.COPY: _NO_METHOD,
        Row.CATALOG: _NO_METHOD,
        Row.VERSIONS: "it knows nothing of charts",
        Row.MIRROR: "it has no mirrors",
        Row.SIGN: "signing is for other programs",
    }

    def version(self) -> str:
        return version("oras")

    def push(self, payload: bytes, ref: Ref) -> None:
        self._push(payload, ref)

    def push_chunks(self, payload: bytes, ref: Ref) -> None:
        self._push(payload, ref, do_chunked=True, chunk_size=CHUNK)

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        out = self.scratch()
        self._call(ref.place, "pull", target=str(ref), outdir=str(out))
        return (out / "payload").read_bytes()

    def tags(self, ref: Ref) -> list[str]:
        found: list[str] = json.loads(self._call(ref.place, "get_tags", container=ref.name))
        return found

    def delete(self, ref: Ref) -> None:
        assert json.loads(self._call(ref.place, "delete_tag", container=str(ref), tag=ref.tag)) is True

    def attach(self, payload: bytes, ref: Ref) -> None:
        # The library asks for the subject's descriptor; which one that is, it cannot find out by itself.
        body = ref.place.manifest(ref.repository, ref.reference)
        self._push(payload, ref.at(tag="note"), subject=body.decode(), artifact=ARTIFACT)

    def attached(self, ref: Ref) -> list[str]:
        """It has no method that lists; the registry is asked directly, with this client's word for the subject."""
        body = ref.place.manifest(ref.repository, "note")
        return [found["digest"] for found in ref.place.referrers(ref.repository, json.loads(body)["subject"]["digest"])]

    def _push(self, payload: bytes, ref: Ref, **more: object) -> None:
        folder = self.scratch()
        (folder / "payload").write_bytes(payload)
        self._call(ref.place, "push", cwd=folder, target=str(ref), files=["payload:application/octet-stream"], **more)

    def _call(self, place: Place, method: str, cwd: Path | None = None, **arguments: object) -> str:
        """What the method returned, as JSON."""
        made = {"insecure": not place.tls, "tls_verify": str(place.ca) if place.ca else True}
        asked = json.dumps({"client": made, "method": method, "arguments": arguments})
        said = self.run(sys.executable, "-P", str(_COMMAND), asked, cwd=cwd)
        return said.splitlines()[-1]
