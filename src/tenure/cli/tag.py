"""`tenure tag`: tags."""

from typing import Annotated

from cyclopts import App, Parameter

from tenure.cli.client import FAILED, Client, run, split_reference, tag_of
from tenure.cli.output import (
    CAREFUL,
    HERE,
    Care,
    Column,
    Where,
    WrongUsage,
    confirmed,
    note,
    print_list,
    print_one,
    short_digest,
    short_time,
)
from tenure.core.digest import looks_like_digest

tag_app = App(name="tag", help="Tags.")

_COLUMNS: tuple[Column, ...] = (
    ("TAG", lambda tag: tag.name),
    ("DIGEST", lambda tag: short_digest(tag.digest)),
    ("MOVED", lambda tag: short_time(tag.moved_at)),
    ("VERSION", lambda tag: str(tag.version)),
    ("MEDIA TYPE", lambda tag: tag.media_type),
)


@tag_app.command(name="ls")
def ls(repository: str, *, where: Where = HERE) -> int:
    """List the tags of a repository."""

    async def work(client: Client) -> int:
        name, tag = split_reference(repository, client.host)
        if tag is not None:
            raise WrongUsage(f"{repository} names a tag; tenure tag show is for one")
        found = [tag async for tag in client.pages("tag.list", {"repository": name})]
        print_list(found, _COLUMNS, lambda tag: f"{name}:{tag.name}", where.output)
        return 0

    return run(where.server, work)


@tag_app.command(name="show")
def show(reference: Annotated[str, Parameter(help="REPOSITORY:TAG")], *, where: Where = HERE) -> int:
    """Show where a tag points."""

    async def work(client: Client) -> int:
        repository, name = tag_of(reference, client.host)
        tag = await client.call("tag.show", {"repository": repository, "tag": name})
        lines = (
            ("Tag", f"{repository}:{tag.name}"),
            ("Digest", tag.digest),
            ("Media type", tag.media_type),
            ("Manifest size", f"{tag.size} bytes"),
            ("Moved", short_time(tag.moved_at)),
            ("Version", str(tag.version)),
        )
        print_one(tag, lines, f"{repository}:{tag.name}", where.output)
        return 0

    return run(where.server, work)


@tag_app.command(name="move")
def move(
    reference: Annotated[str, Parameter(help="REPOSITORY:TAG, which may be new")],
    target: Annotated[str, Parameter(help="Digest of a manifest in the same repository, or another tag of it")],
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="Say what would happen and change nothing.")] = False,
    where: Where = HERE,
) -> int:
    """Point a tag at a manifest that is here already."""

    async def work(client: Client) -> int:
        repository, name = tag_of(reference, client.host)
        digest = target
        if not looks_like_digest(target):
            digest = (await client.call("tag.show", {"repository": repository, "tag": target})).digest
        moved = await client.call(
            "tag.move", {"repository": repository, "tag": name}, query={"dry_run": dry_run}, body={"digest": digest}
        )
        before = short_digest(moved.previous) if moved.previous else "nothing"
        note(f"{'Would move' if dry_run else 'Moved'} {repository}:{name} from {before} to {short_digest(digest)}.")
        lines = (
            ("Tag", f"{repository}:{name}"),
            ("Digest", moved.tag.digest),
            ("Before", moved.previous or "-"),
            ("Version", str(moved.tag.version)),
        )
        print_one(moved, lines, f"{repository}:{name}", where.output)
        return 0

    return run(where.server, work)


@tag_app.command(name="rm")
def rm(
    reference: Annotated[str, Parameter(help="REPOSITORY:TAG")], *, care: Care = CAREFUL, where: Where = HERE
) -> int:
    """Delete a tag; the manifest it points at stays."""

    async def work(client: Client) -> int:
        repository, name = tag_of(reference, client.host)
        names = {"repository": repository, "tag": name}
        removal = await client.call("tag.delete", names, query={"dry_run": True})
        if not care.dry_run:
            if not confirmed(f"Delete the tag {repository}:{name}?", care):
                return FAILED
            removal = await client.call("tag.delete", names)
        note(f"{'Would delete' if care.dry_run else 'Deleted'} {repository}:{name}.")
        lines = (("Tag", f"{repository}:{name}"), ("In trash until", short_time(removal.restorable_until)))
        print_one(removal, lines, f"{repository}:{name}", where.output)
        return 0

    return run(where.server, work)
