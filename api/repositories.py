"""Repositories: list, show, delete."""

import hashlib

from tenure.api.paging import cursor_text, cut, next_cursor
from tenure.api.route import Call, Reply
from tenure.api.schemas import Removal, Repository, RepositoryLine, RepositoryPage
from tenure.core.clock import to_rfc3339
from tenure.core.page import PageRequest
from tenure.storage.meta import overview
from tenure.storage.meta.removal import delete_repository
from tenure.storage.meta.repositories import get_repository
from tenure.storage.meta.tags import list_tags

#: tags named in the answer to a delete
SHOWN_TAGS = 1000


async def list_all(call: Call) -> Reply:
    """Those the caller may pull from; a page may be short where others stand between."""
    found = await overview.repository_lines(
        call.db, prefix=call.query.prefix, last=cursor_text(call.query.cursor), limit=call.query.limit + 1
    )
    lines, last = cut(found, call.query.limit)
    items = [
        RepositoryLine(
            name=line.name,
            tags=line.tags,
            manifests=line.manifests,
            created_at=to_rfc3339(line.created_at),
            pushed_at=time_or_none(line.pushed_at),
        )
        for line in lines
        if call.may("pull", line.name)
    ]
    return Reply(RepositoryPage(items=items, next=next_cursor(last.name if last else None)))


async def show(call: Call) -> Reply:
    body = await _read(call)
    return Reply(body, etag=_tag_of(body))


async def etag(call: Call) -> str | None:
    return _tag_of(await _read(call))


async def delete(call: Call) -> Reply:
    before = await get_repository(call.db, call.repository)
    names = await list_tags(call.db, call.repository, PageRequest(SHOWN_TAGS))
    manifests = await delete_repository(call.db, call.repository, call.origin, trash_for=call.context.trash)
    return Reply(await removal(call, names, tags=before.tags, manifests=manifests))


async def removal(call: Call, names: list[str], *, tags: int, manifests: int) -> Removal:
    """What a delete answers; called in its transaction, so that the time is the one of the rows."""
    now = await call.db.transact(lambda session: session.now())
    return Removal(
        dry_run=call.query.dry_run,
        repository=call.repository,
        tags=names,
        tag_count=tags,
        manifest_count=manifests,
        restorable_until=to_rfc3339(now + call.context.trash),
    )


def time_or_none(moment: int | None) -> str | None:
    return None if moment is None else to_rfc3339(moment)


async def _read(call: Call) -> Repository:
    found = await get_repository(call.db, call.repository)
    return Repository(
        name=found.name,
        tags=found.tags,
        manifests=found.manifests,
        size=found.size,
        created_at=to_rfc3339(found.created_at),
        pushed_at=time_or_none(await overview.last_push(call.db, found.id)),
    )


def _tag_of(body: Repository) -> str:
    return f'"{hashlib.sha256(repr(body).encode()).hexdigest()[:24]}"'
