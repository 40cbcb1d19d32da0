"""Media types, and what kind of thing each one is."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
MANIFESTS = INDEXES | IMAGES | {OCI_ARTIFACT}
IMAGE_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

#: Layers that are never pushed: they live elsewhere (image-spec, non-distributable layers).
_FOREIGN_PREFIXES = (
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.foreign.",
)


def is_foreign_layer(media_type: str) -> bool:
    return media_type.startswith(_FOREIGN_PREFIXES)


def is_manifest(media_type: str) -> bool:
    """Whether a descriptor of this type points at a manifest and not at a blob."""
    return media_type in MANIFESTS


def bare(content_type: str) -> str:
    """`type/subtype` of a Content-Type header, without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
