"""Where settings come from, which one wins, and what is said of a wrong one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tenure.config.document import comments, render
from tenure.config.load import Value, keys, load
from tenure.config.rules import ConfigError, is_loopback, parse_listen, sqlite_path
from tenure.config.tree import Settings
from tenure.config.values import hide_password, show
from tenure.storage.blobs.budget import FIRST, MemoryBudget
from tenure.storage.blobs.folder import READ_SIZE
from tenure.storage.settings import Secret

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_source_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(environment={"XDG_DATA_HOME": str(tmp_path)})
    assert loaded.settings.server.listen == "127.0.0.1:5000"
    assert loaded.settings.server.data_dir == str(tmp_path / "tenure")
    assert loaded.settings.database.url == f"sqlite:///{tmp_path}/tenure/tenure.db"
    assert loaded.settings.blobs.url == f"file://{tmp_path}/tenure/blobs"
    assert sqlite_path(loaded.settings) == tmp_path / "tenure" / "tenure.db"
    assert set(loaded.origins.values()) == {"default"}


def test_flags_beat_the_environment_and_the_environment_beats_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[server]\nlisten = "127.0.0.1:1"\ndrain = "1m"\nmax_requests = 7\n')
    loaded = load(
        path,
        {"server.listen": Value("127.0.0.1:3", "flag --listen")},
        {"TENURE_SERVER_LISTEN": "127.0.0.1:2", "TENURE_SERVER_DRAIN": "2m"},
    )
    server = loaded.settings.server
    assert (server.listen, server.drain, server.max_requests) == ("127.0.0.1:3", 120_000_000, 7)
    assert loaded.origins["server.listen"] == "flag --listen"
    assert loaded.origins["server.drain"] == "environment TENURE_SERVER_DRAIN"
    assert loaded.origins["server.max_requests"] == str(path)


def test_the_file_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tenure.toml").write_text("[server]\nmax_requests = 3\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load(environment={}).settings.server.max_requests == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[servers]\n", r"unknown section \[servers\] in .*settings.toml; the nearest there is: \[server\]"),
        ('[server]\nlissten = "x"\n', r"unknown key server.lissten in .*settings.toml; .* server.listen$"),
        ('[push]\nleese = "1h"\n', r"unknown key push.leese .* push.lease$"),
        ("server = 1\n", r"server in .* must be a section: \[server\]"),
        ("[server\n", "is not TOML"),
        ('[server]\ndrain = "soon"\n', "server.drain: 'soon' is not a duration; .*90s"),
        ("[server]\ndrain = 5\n", "server.drain: 5 is not a duration"),
        ("[server]\nmax_requests = 0\n", "server.max_requests: must be at least 1"),
        ("[server]\nmax_requests = true\n", "must be a whole number"),
        ("[server]\nmax_requests = -1\n", "must not be negative"),
        ("[server]\nlisten = 5000\n", "server.listen: 5000 must be text in quotes"),
        ('[server]\nlisten = "5000"\n', "must be HOST:PORT"),
        ('[server]\nlisten = "::1:5000"\n', "must be HOST:PORT"),
        ('[server]\nrole = "some"\n', "server.role: 'some' must be one of all, api, worker"),
        ('[server]\nrole = "api"\n', "api needs a database that several processes share"),
        ('[server]\ntls_cert = "a.pem"\n', r"server.tls_cert: TLS needs server.tls_key too"),
        ('[server]\ntrusted_proxies = ["10.0.0.1/8"]\n', "has host bits set.*10.0.0.0/8"),
        ('[server]\nexternal_url = "registry"\n', "must be a scheme and a host"),
        ('[database]\nurl = "mysql://a:secret@b/c"\n', r"mysql://a:\*\*\*@b/c' must begin with sqlite:///"),
        ('[blobs]\nurl = "gs://b"\n', "must begin with file:/// or s3://"),
        ('[blobs]\nredirect = "on"\n', "a folder has no address"),
        (
            "[blobs]\nmemory_budget = 0\n",
            r'blobs.memory_budget: must be at least "16MiB", .* \(from .*\)$',
        ),
        ('[blobs]\nmemory_budget = "15MiB"\n', "blobs.memory_budget: must be at least"),
        ('[s3]\npart_size = "1MiB"\n', "at least 5MiB"),
        ('[s3]\naccess_key = "x"\n', "s3.access_key: needs s3.secret_key too"),
        ('[log]\naccess = "maybe"\n', "must be true or false"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(write(tmp_path, text), environment={})
    assert re.search(said, str(refused.value)), str(refused.value)
    assert "\n" not in str(refused.value)
    assert "secret@" not in str(refused.value)


def test_the_least_memory_has_room_for_a_part_a_beginning_and_a_download(tmp_path: Path) -> None:
    path = write(tmp_path, '[blobs]\nmemory_budget = "16MiB"\n')
    settings = load(path, environment={}).settings
    budget = MemoryBudget(settings.blobs.memory_budget)
    assert budget.parts.limit >= settings.s3.part_size
    assert budget.first.limit >= FIRST
    assert budget.reads.limit >= READ_SIZE


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read: No such file"):
        load(tmp_path / "absent.toml", environment={})


def test_an_unknown_variable_is_an_error_but_those_of_tests_and_client_are_not(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    load(path, environment={"TENURE_TEST_PG_BIN": "/x", "TENURE_SERVER": "http://x", "HOME": "/"})
    with pytest.raises(ConfigError, match=r"unknown variable TENURE_SERVER_LISTN .* TENURE_SERVER_LISTEN$"):
        load(path, environment={"TENURE_SERVER_LISTN": "x"})


def test_secrets_can_stand_in_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n", encoding="utf-8")
    url = tmp_path / "url"
    url.write_text("postgresql://u:p@db/tenure", encoding="utf-8")
    loaded = load(
        write(tmp_path, ""),
        environment={
            "TENURE_S3_ACCESS_KEY": "id",
            "TENURE_S3_SECRET_KEY_FILE": str(secret),
            "TENURE_DATABASE_URL_FILE": str(url),
        },
    )
    assert str.__str__(loaded.settings.s3.secret_key) == "s3cret"
    assert loaded.settings.database.url == "postgresql://u:p@db/tenure"
    assert loaded.origins["s3.secret_key"] == "environment TENURE_S3_SECRET_KEY_FILE"
    with pytest.raises(ConfigError, match="both set"):
        load(
            write(tmp_path, ""),
            environment={"TENURE_S3_SECRET_KEY": "x", "TENURE_S3_SECRET_KEY_FILE": str(secret)},
        )
    with pytest.raises(ConfigError, match="unknown variable TENURE_S3_REGION_FILE"):
        load(write(tmp_path, ""), environment={"TENURE_S3_REGION_FILE": str(secret)})


def test_lists_in_the_environment_are_separated_by_commas(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, ""), environment={"TENURE_SERVER_TRUSTED_PROXIES": "10.0.0.0/8, fd00::/8"})
    assert loaded.settings.server.trusted_proxies == ("10.0.0.0/8", "fd00::/8")


def test_values_are_shown_without_their_secrets() -> None:
    assert show(Secret("abc")) == '"***"'
    assert show(Secret("")) == '""'
    assert hide_password("postgresql://u:p%40@h:5/d?password=x&sslmode=require") == (
        "postgresql://u:***@h:5/d?password=***&sslmode=require"
    )
    assert hide_password("sqlite:////var/lib/tenure.db") == "sqlite:////var/lib/tenure.db"
    assert hide_password("file:///data/blobs") == "file:///data/blobs"
    assert hide_password("s3://bucket/prefix") == "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:5000", ("127.0.0.1", 5000)), ("[::1]:0", ("::1", 0)), (":80", ("0.0.0.0", 80))],
)
def test_an_address_to_listen_on(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


def test_loopback_is_told_from_the_rest() -> None:
    assert is_loopback("127.0.0.5") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("registry.example.com")


def test_every_setting_is_documented_and_the_page_is_current() -> None:
    for section in msgspec.structs.fields(Settings):
        said = comments(section.type)
        for key in msgspec.structs.fields(section.type):
            assert said.get(key.name), f"{section.name}.{key.name} has no `#:` comment"
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == render(), "run make docs"


def test_every_setting_is_read_somewhere() -> None:
    """A setting that nothing reads is a promise that nobody keeps."""
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("src/tenure", "api", "gc", "registry", "storage")
        for path in (ROOT / folder).rglob("*.py")
        if path.name not in ("settings.py", "tree.py", "rules.py", "load.py")
    ]
    text = "\n".join(sources)
    dead = [name for name in keys() if not re.search(rf"\.{name.partition('.')[2]}\b", text)]
    assert dead == []


def test_config_check_prints_values_with_their_places_and_no_secret(tmp_path: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TENURE_")}
    environment |= {"TENURE_S3_ACCESS_KEY": "id", "TENURE_S3_SECRET_KEY": "hush", "TENURE_SERVER_MAX_REQUESTS": "9"}
    path = write(tmp_path, '[log]\nlevel = "debug"\n')
    ran = subprocess.run(
        [sys.executable, "-m", "tenure", "config", "check", "--config", str(path)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "max_requests = 9" in ran.stdout and "environment TENURE_SERVER_MAX_REQUESTS" in ran.stdout
    assert "hush" not in ran.stdout + ran.stderr
    assert re.search(r'level = "debug" +# .*settings.toml', ran.stdout)


def test_a_config_error_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    path = write(tmp_path, "[server]\nlisen = 1\n")
    ran = subprocess.run(
        [sys.executable, "-m", "tenure", "serve", "--config", str(path)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.strip() == f"unknown key server.lisen in {path}; the nearest there is: server.listen"


def test_the_shipped_example_for_replicas_is_valid() -> None:
    example = Path(__file__).parents[2] / "deploy" / "tenure.toml"
    ran = subprocess.run(
        [sys.executable, "-m", "tenure", "config", "check", "--config", str(example)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "postgresql://tenure@db.example.com/tenure" in ran.stdout
