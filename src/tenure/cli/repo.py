"""`tenure repo`: repositories."""

from typing import Annotated

from cyclopts import App, Parameter

from tenure.cli.client import FAILED, Client, run, split_reference
from tenure.cli.output import (
    CAREFUL,
    HERE,
    Care,
    Column,
    Where,
    WrongUsage,
    confirmed,
    count,
    note,
    print_list,
    print_one,
    short_time,
    size,
)

repo_app = App(name="repo", help="Repositories.")

_COLUMNS: tuple[Column, ...] = (
    ("REPOSITORY", lambda repo: repo.name),
    ("TAGS", lambda repo: str(repo.tags)),
    ("MANIFESTS", lambda repo: str(repo.manifests)),
    ("LAST PUSH", lambda repo: short_time(repo.pushed_at)),
)


@repo_app.command(name="ls")
def ls(prefix: Annotated[str, Parameter(help="Only names that begin with this.")] = "", *, where: Where = HERE) -> int:
    """List repositories."""

    async def work(client: Client) -> int:
        found = [repo async for repo in client.pages("repository.list", {}, query={"prefix": prefix})]
        print_list(found, _COLUMNS, lambda repo: str(repo.name), where.output)
        return 0

    return run(where.server, work)


@repo_app.command(name="show")
def show(repository: str, *, where: Where = HERE) -> int:
    """Show what a repository holds."""

    async def work(client: Client) -> int:
        repo = await client.call("repository.show", {"repository": _whole(repository, client)})
        lines = (
            ("Repository", repo.name),
            ("Tags", str(repo.tags)),
            ("Manifests", str(repo.manifests)),
            ("Size", f"{size(repo.size)} ({repo.size} bytes)"),
            ("Created", short_time(repo.created_at)),
            ("Last push", short_time(repo.pushed_at)),
        )
        print_one(repo, lines, repo.name, where.output)
        return 0

    return run(where.server, work)


@repo_app.command(name="rm")
def rm(repository: str, *, care: Care = CAREFUL, where: Where = HERE) -> int:
    """Delete a repository with everything in it; it stays in the trash for a while."""

    async def work(client: Client) -> int:
        name = _whole(repository, client)
        removal = await client.call("repository.delete", {"repository": name}, query={"dry_run": True})
        what = f"{name} with {count(removal.tag_count, 'tag')} and {count(removal.manifest_count, 'manifest')}"
        if not care.dry_run:
            if not confirmed(f"Delete {what}?", care):
                return FAILED
            removal = await client.call("repository.delete", {"repository": name})
        note(f"Would delete {what}." if care.dry_run else f"Deleted {what}.")
        lines = (
            ("Repository", removal.repository),
            ("Tags", str(removal.tag_count)),
            ("Manifests", str(removal.manifest_count)),
            ("In trash until", short_time(removal.restorable_until)),
        )
        print_one(removal, lines, removal.repository, where.output)
        return 0

    return run(where.server, work)


def _whole(text: str, client: Client) -> str:
    repository, tag = split_reference(text, client.host)
    if tag is not None:
        raise WrongUsage(f"{text} names a tag; tenure tag is for those")
    return repository
