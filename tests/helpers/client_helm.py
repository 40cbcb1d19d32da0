"""helm: charts as OCI artifacts. A chart's name is the last part of the repository, its version is the tag."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from helpers.client import Client, Ref, Row
from helpers.client_place import Place, unpacked
from helpers.client_programs import HELM
from helpers.client_registry_tools import GO_MODULE, trust
from helpers.go_programs import install


class Helm(Client):
    name = "helm"
    origin = GO_MODULE
    without: ClassVar[Mapping[Row, str]] = {
        Row.INDEX: "a chart has no platforms",
        Row.MOUNT: "it never mounts: it packs a chart and sends it",
        Row.COPY: "it has no command for it",
        Row.TAGS: "it lists tags only to choose a version: see the row of chart versions",
        Row.CATALOG: "it has no command for it",
        Row.DELETE: "it has no command for it",
        Row.REFERRERS: "it has no command for referrers",
        Row.CHUNKS: "it sends a blob in one PUT",
        Row.MIRROR: "it has no mirrors",
        Row.SIGN: "its provenance files are signed without a registry",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = str(install(HELM))

    def version(self) -> str:
        return HELM.version.removeprefix("v")

    def push(self, payload: bytes, ref: Ref) -> None:
        parent, _, chart = ref.name.rpartition("/")
        self._helm(ref.place, "push", str(self._packed(payload, chart, ref.tag)), f"oci://{parent}")

    def pull(self, ref: Ref, architecture: str = "") -> bytes:
        if ref.digest:
            return self._pulled(ref.place, f"oci://{ref}")
        return self._pulled(ref.place, f"oci://{ref.name}", "--version", ref.tag)

    def newest(self, ref: Ref, versions: str) -> bytes:
        """The newest chart of a range of versions."""
        return self._pulled(ref.place, f"oci://{ref.name}", "--version", versions)

    def _pulled(self, place: Place, name: str, *flags: str) -> bytes:
        out = self.scratch()
        self._helm(place, "pull", name, *flags, "-d", str(out))
        (found,) = out.glob("*.tgz")
        return unpacked(found.read_bytes())

    def _packed(self, payload: bytes, chart: str, version: str) -> Path:
        """The same file for the same chart: packing twice gives two archives."""
        folder = self.folder / "charts" / f"{chart}-{version}-{payload[:8].hex()}"
        archive = folder / f"{chart}-{version}.tgz"
        if not archive.exists():
            source = folder / chart
            (source / "files").mkdir(parents=True)
            (source / "Chart.yaml").write_text(f"apiVersion: v2\nname: {chart}\nversion: {version}\n")
            (source / "files" / "payload").write_bytes(payload)
            self.run(self._path, "package", str(source), "-d", str(folder))
        return archive

    def _helm(self, place: Place, *arguments: str) -> str:
        return self.run(self._path, *arguments, *trust(place))
