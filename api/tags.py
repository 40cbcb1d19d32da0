"""Tags: list, show, move, delete, and what they pointed at before."""

from tenure.api.paging import cursor_number, cursor_text, cut, next_cursor
from tenure.api.repositories import removal
from tenure.api.route import Call, Reply
from tenure.api.schemas import Tag, TagEvent, TagEventPage, TagMove, TagPage
from tenure.core.clock import to_rfc3339
from tenure.core.digest import Digest
from tenure.core.errors import ManifestUnknown, NotFound
from tenure.core.page import PageRequest
from tenure.storage.meta import tags
from tenure.storage.meta.repositories import get_repository


async def list_all(call: Call) -> Reply:
    # PageRequest is not used to parse here: its own limit is one below what tells whether a page follows.
    page = PageRequest(call.query.limit + 1, cursor_text(call.query.cursor))
    found, last = cut(await tags.list_tag_rows(call.db, call.repository, page), call.query.limit)
    return Reply(TagPage(items=[_tag(tag) for tag in found], next=next_cursor(last.name if last else None)))


async def show(call: Call) -> Reply:
    found = await _get(call)
    return Reply(_tag(found), etag=_entity_tag(found))


async def etag(call: Call) -> str | None:
    found = await tags.get_tag(call.db, call.repository, call.params["tag"])
    return None if found is None else _entity_tag(found)


async def move(call: Call) -> Reply:
    return await _move(call, Digest.parse(call.body.digest))


async def restore(call: Call) -> Reply:
    wanted = call.body.event
    events = await tags.tag_history(call.db, call.repository, call.params["tag"], limit=1, before=wanted + 1)
    event = events[0] if events and events[0].id == wanted else None
    digest = (event.new or event.old) if event else None
    if digest is None:
        raise NotFound(f"tag {call.params['tag']} has no event {wanted} in its history")
    return await _move(call, digest)


async def delete(call: Call) -> Reply:
    tag = call.params["tag"]
    await tags.delete_tag(call.db, call.repository, tag, call.origin, trash_for=call.context.trash)
    return Reply(await removal(call, [tag], tags=1, manifests=0))


async def history(call: Call) -> Reply:
    """Of one tag, or where the path names none, of all tags of the repository."""
    tag = call.params.get("tag")
    found, last = cut(
        await tags.tag_history(
            call.db,
            call.repository,
            tag,
            limit=call.query.limit + 1,
            before=cursor_number(call.query.cursor),
        ),
        call.query.limit,
    )
    # An empty list would say that there is such a tag; a page behind the last one may be empty.
    if tag is not None and not found and call.query.cursor is None:
        raise ManifestUnknown(f"tag {tag} is not known in {call.repository} and never was")
    return Reply(TagEventPage(items=[_event(event) for event in found], next=next_cursor(last.id if last else None)))


async def _move(call: Call, digest: Digest) -> Reply:
    tag = call.params["tag"]
    moved, previous = await tags.move_tag(call.db, call.repository, tag, digest, call.origin, if_version=None)
    body = TagMove(dry_run=call.query.dry_run, previous=str(previous) if previous else None, tag=_tag(moved))
    return Reply(body, etag=_entity_tag(moved))


async def _get(call: Call) -> tags.Tag:
    tag = call.params["tag"]
    found = await tags.get_tag(call.db, call.repository, tag)
    if found is None:
        await get_repository(call.db, call.repository)  # NameUnknown says more where that is the cause
        raise ManifestUnknown(f"tag {tag} is not known in {call.repository}")
    return found


def _entity_tag(tag: tags.Tag) -> str:
    # The version alone would come back when a tag is deleted and pushed anew.
    return f'"{tag.version}-{tag.digest.hex[:16]}"'


def _tag(tag: tags.Tag) -> Tag:
    return Tag(
        name=tag.name,
        digest=str(tag.digest),
        media_type=tag.media_type,
        size=tag.size,
        version=tag.version,
        moved_at=to_rfc3339(tag.moved_at),
    )


def _event(event: tags.TagEvent) -> TagEvent:
    return TagEvent(
        id=event.id,
        tag=event.tag,
        old=str(event.old) if event.old else None,
        new=str(event.new) if event.new else None,
        actor=event.actor,
        cause=event.cause,
        request_id=event.request_id,
        at=to_rfc3339(event.at),
    )
