"""`tenure repo`, `tenure tag` and `tenure history` against a running registry, as people and scripts use them."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from helpers.admin import Admin, changed, dump
from helpers.images import Made, put_image
from tenure.cli.main import main
from tenure.storage.meta.database import Session
from tenure.storage.meta.protection import HoldKind
from tenure.storage.meta.tables import holds, manifests


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Ran]]


@pytest.fixture
def tenure(admin: Admin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line against the admin API, in a thread with a loop of its own."""
    monkeypatch.setenv("TENURE_SERVER", admin.address)
    monkeypatch.delenv("NO_COLOR", raising=False)

    def call(arguments: tuple[str, ...]) -> int:
        try:
            main(list(arguments))
        except SystemExit as end:
            return int(end.code or 0)
        raise AssertionError("main ends the process")

    async def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = await asyncio.to_thread(call, arguments)
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture
async def made(admin: Admin) -> Made:
    await put_image(admin.db, "zoo", "v1", seed="z")
    return await put_image(admin.db, "team/app", "v1", "v2", seed="a")


async def test_lists_are_tables_json_or_names(tenure: Run, made: Made) -> None:
    table = await tenure("repo", "ls")
    assert (table.code, table.err) == (0, "")
    lines = [line.split() for line in table.out.splitlines()]
    assert lines[0][:3] == ["REPOSITORY", "TAGS", "MANIFESTS"]
    assert [line[:3] for line in lines[1:]] == [["team/app", "2", "1"], ["zoo", "1", "1"]]
    assert "\x1b" not in table.out
    assert [repo["name"] for repo in json.loads((await tenure("repo", "ls", "-o", "json")).out)] == ["team/app", "zoo"]
    assert (await tenure("repo", "ls", "team/", "-o", "name")).out == "team/app\n"
    assert (await tenure("repo", "ls", "none")).out == ""
    assert (await tenure("tag", "ls", "team/app", "--output", "name")).out == "team/app:v1\nteam/app:v2\n"


async def test_nothing_is_cut_in_a_pipe(tenure: Run, admin: Admin) -> None:
    name = "/".join(["component" * 5] * 5)
    await put_image(admin.db, name, "v1")
    assert f"{name} " in (await tenure("repo", "ls")).out


async def test_all_pages_are_read(tenure: Run, admin: Admin, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenure.cli.client.PAGE", 1)
    assert (await tenure("repo", "ls", "-o", "name")).out == "team/app\nzoo\n"
    assert len((await tenure("history", "team/app", "--limit", "2")).out.splitlines()) == 3
    assert len((await tenure("history", "team/app")).out.splitlines()) == 3


async def test_one_thing_is_shown(tenure: Run, made: Made, admin: Admin) -> None:
    host = admin.address.removeprefix("http://")
    shown = await tenure("repo", "show", f"{host}/team/app")
    assert shown.code == 0 and "Manifests" in shown.out
    assert json.loads((await tenure("repo", "show", "team/app", "-o", "json")).out)["tags"] == 2
    assert str(made.digest) in (await tenure("tag", "show", "team/app:v1")).out
    assert json.loads((await tenure("tag", "show", "team/app:v1", "-o", "json")).out)["digest"] == str(made.digest)


async def test_a_tag_moves_to_a_digest_or_to_where_another_tag_is(tenure: Run, admin: Admin, made: Made) -> None:
    other = await put_image(admin.db, "team/app", "v3", seed="b")
    before = await dump(admin.db)
    tried = await tenure("tag", "move", "team/app:v1", str(other.digest), "--dry-run")
    assert tried.code == 0 and "Would move team/app:v1" in tried.err
    assert changed(before, await dump(admin.db)) == set()
    moved = await tenure("tag", "move", "team/app:v1", "v3", "-o", "json")
    assert json.loads(moved.out)["tag"]["digest"] == str(other.digest)
    assert "Moved team/app:v1" in moved.err
    told = await tenure("history", "team/app:v1", "-o", "json")
    assert [(event["cause"], event["new"]) for event in json.loads(told.out)] == [
        ("retag", str(other.digest)),
        ("push", str(made.digest)),
    ]
    assert "retag" in (await tenure("history", "team/app")).out
    assert (await tenure("history", "team/app", "--limit", "1")).err.startswith("The newest 1 moves")


async def test_nothing_is_destroyed_unasked(tenure: Run, admin: Admin, made: Made) -> None:
    before = await dump(admin.db)
    for command in (["repo", "rm", "team/app"], ["tag", "rm", "team/app:v1"]):
        refused = await tenure(*command)
        assert refused.code == 2 and "--yes" in refused.err
        tried = await tenure(*command, "--dry-run")
        assert tried.code == 0 and tried.err.startswith("Would delete")
    assert changed(before, await dump(admin.db)) == set()
    gone = await tenure("tag", "rm", "team/app:v1", "--yes", "-o", "name")
    assert (gone.code, gone.out) == (0, "team/app:v1\n")
    gone = await tenure("repo", "rm", "team/app", "--yes")
    assert gone.code == 0 and "1 tag and 1 manifest." in gone.err and "In trash until" in gone.out
    assert (await tenure("repo", "ls", "-o", "name")).out == "zoo\n"


async def test_exit_codes_mean_something(tenure: Run, admin: Admin, made: Made) -> None:
    for arguments in (["repo", "show", "none"], ["tag", "show", "team/app:none"], ["history", "none"]):
        missing = await tenure(*arguments)
        assert missing.code == 3 and missing.err.startswith("Refused: ") and missing.out == ""
    for arguments in (
        ["tag", "show", "team/app"],
        ["repo", "show", "team/app:v1"],
        ["tag", "show", "elsewhere.example/team/app:v1"],
        ["history", "team/app", "--limit", "0"],
        ["tag", "nonsense"],
        ["repo", "ls", "--output", "xml"],
        ["repo", "ls", "--server", "ftp://x"],
    ):
        assert (await tenure(*arguments)).code == 2, arguments
    assert (await tenure("repo", "show", "NONE")).code == 1
    admin.gate.closed.add(("delete", "team/app"))
    assert (await tenure("repo", "rm", "team/app", "--yes")).code == 4


async def test_a_refusal_by_protection_says_what_protects(tenure: Run, admin: Admin, made: Made) -> None:
    async def pin(session: Session) -> None:
        row = await session.one(
            sa.select(manifests.c.id, manifests.c.repo_id).where(manifests.c.digest == sa.bindparam("d")),
            {"d": made.digest.packed},
        )
        assert row is not None
        hold: dict[str, Any] = {"kind": int(HoldKind.PIN), "digest": made.digest.packed, "source": "release 1.0"}
        await session.run(sa.insert(holds), {**hold, "manifest_id": row["id"], "m_live": 1, "repo_id": row["repo_id"]})

    await admin.db.transact(pin)
    refused = await tenure("repo", "rm", "team/app", "--yes")
    assert refused.code == 5
    assert "pin: release 1.0" in refused.err


async def test_a_registry_that_is_not_there_is_told_kindly(tenure: Run, admin: Admin) -> None:
    how = "; name a registry with --server or TENURE_SERVER, or start one with: tenure serve\n"
    for server, reason in (
        ("http://127.0.0.1:1", "the connection was refused"),
        ("http://localhost:1", "the connection was refused"),
        ("http://nowhere.invalid", "the name of the host is not known"),
        (admin.address.replace("http:", "https:"), "it does not speak TLS there; does its address begin with http://?"),
    ):
        away = await tenure("repo", "ls", "--server", server.replace("//", "//me:hush@"))
        assert (away.code, away.out) == (1, "")
        assert away.err == f"No answer from {server}: {reason}{how}"
    # Something answers, but it is no registry.
    wrong = await tenure("repo", "ls", "--server", admin.address + "/metrics")
    assert wrong.code == 1 and wrong.err == f"{admin.address} answers 404, but not as Tenure does{how}"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "the connection was closed before an answer came"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers there does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "the answer ended before it was complete"),
    ],
)
async def test_something_that_is_no_registry_is_told_kindly(tenure: Run, said: bytes, reason: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        server = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        told = await tenure("repo", "ls", "--server", server)
    assert told.code == 1 and told.err.startswith(f"No answer from {server}: {reason}; name a registry")


@pytest.mark.parametrize("server", ["ftp://x", "http://", "http://x:99999", "http://me:hush@[::1", "http://a..b"])
async def test_an_address_that_is_none_is_wrong_usage(tenure: Run, server: str) -> None:
    told = await tenure("repo", "ls", "--server", server)
    assert told.code == 2 and "such as http://127.0.0.1:5000, not '" in told.err and told.err.count("\n") == 1
    assert "hush" not in told.err


async def test_a_tag_that_never_was_has_no_history(tenure: Run, admin: Admin, made: Made) -> None:
    never = await tenure("history", "team/app:v7")
    assert (never.code, never.out) == (3, "")
    assert never.err == "Refused: tag v7 is not known in team/app and never was\n"
    assert (await tenure("tag", "rm", "team/app:v1", "--yes")).code == 0
    gone = await tenure("history", "team/app:v1", "-o", "json")
    assert [event["cause"] for event in json.loads(gone.out)] == ["delete", "push"]


async def test_a_bad_name_is_refused_in_words(tenure: Run, made: Made) -> None:
    grammar = "a tag has up to 128 characters from A-Z a-z 0-9 _ . - and does not begin with . or -"
    for arguments in (["team/app:-x", "v1"], ["team/app:a b", "v1"], ["team/app:v1", "-x"], ["team/app:v1", "a b"]):
        told = await tenure("tag", "move", "--", *arguments)
        assert (told.code, told.err) == (1, f"Refused: {grammar}\n"), arguments
    told = await tenure("tag", "move", "team/app:v1", "sha256:short")
    assert told.code == 1
    assert told.err == "Refused: the field digest: must be sha256: and 64, or sha512: and 128 lower-case hex digits\n"


@pytest.mark.parametrize(
    ("command", "own"),
    [
        (["repo"], set()),
        (["repo", "ls"], {"--prefix"}),
        (["repo", "show"], {"--repository"}),
        (["repo", "rm"], {"--repository", "--dry-run", "--yes"}),
        (["tag"], set()),
        (["tag", "ls"], {"--repository"}),
        (["tag", "show"], {"--reference"}),
        (["tag", "move"], {"--reference", "--target", "--dry-run"}),
        (["tag", "rm"], {"--reference", "--dry-run", "--yes"}),
        (["history"], {"--reference", "--limit"}),
    ],
)
async def test_help_lists_what_a_command_heeds(tenure: Run, command: list[str], own: set[str]) -> None:
    shown = await tenure(*command, "--help")
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.out))
    assert flags == (own | {"--server", "--output"} if own else set()), shown.out
