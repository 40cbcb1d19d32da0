"""What happened, written in the transaction that made it true: audit rows and the outbox."""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from tenure.core.digest import Digest
from tenure.core.ids import new_ulid
from tenure.core.origin import Origin
from tenure.storage.meta.database import Session
from tenure.storage.meta.records import audit_events, outbox_events, tag_events

_AUDIT = sa.insert(audit_events)
_EMIT = sa.insert(outbox_events)
_TAG_EVENT = sa.insert(tag_events)


async def audit(
    session: Session,
    origin: Origin,
    *,
    action: str,
    repository: str | None = None,
    target: str | None = None,
    outcome: str = "ok",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append one audit row; `action` is `noun.verb`."""
    await session.run(
        _AUDIT,
        {
            "at": await session.now(),
            "actor": origin.actor,
            "address": origin.address,
            "request_id": origin.request_id,
            "action": action,
            "repository": repository,
            "target": target,
            "outcome": outcome,
            "detail": json.dumps(dict(detail or {}), separators=(",", ":")),
        },
    )


async def emit(session: Session, origin: Origin, action: str, repository: str, target: Mapping[str, Any]) -> None:
    """Append one event for the world: action push, pull, delete or mount; `target` as distribution's envelope."""
    body = {
        "target": {"repository": repository, **target},
        "actor": {"name": origin.actor},
        "request": {"id": origin.request_id, "addr": origin.address, "useragent": origin.user_agent},
    }
    await session.run(
        _EMIT,
        {
            "event_id": new_ulid(),
            "at": await session.now(),
            "action": action,
            "repository": repository,
            "body": json.dumps(body, separators=(",", ":")),
        },
    )


async def record_tag_move(
    session: Session,
    origin: Origin,
    repo_id: int,
    tag: str,
    *,
    old: Digest | None,
    new: Digest | None,
    cause: str,
) -> None:
    """One move of one tag, for its history. cause: push, retag, delete, expire, restore, replicate."""
    await session.run(
        _TAG_EVENT,
        {
            "repo_id": repo_id,
            "tag": tag,
            "old_digest": old.packed if old else None,
            "new_digest": new.packed if new else None,
            "actor": origin.actor,
            "cause": cause,
            "request_id": origin.request_id,
            "at": await session.now(),
        },
    )
