"""Every client of the matrix, in the order of the table."""

from helpers.client import Client
from helpers.client_containerd import Containerd
from helpers.client_containers import Buildah, Podman, SkopeoClient
from helpers.client_cosign import Cosign
from helpers.client_docker import Docker
from helpers.client_helm import Helm
from helpers.client_oras_py import OrasPy
from helpers.client_registry_tools import Crane, Oras, Regctl

QUICK: tuple[type[Client], ...] = (
    Docker, Containerd, Podman, Buildah, SkopeoClient, Crane, Regctl, Oras, OrasPy, Helm,
)  # fmt: skip
#: only in the long form: they take minutes to build
SLOW: tuple[type[Client], ...] = (Cosign,)
CLIENTS = (*QUICK, *SLOW)
