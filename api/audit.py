"""The audit list: who did what, when and from where."""

from tenure.api.paging import cursor_number, cut, next_cursor
from tenure.api.route import Call, Reply
from tenure.api.schemas import AuditEvent, AuditPage
from tenure.core.clock import from_rfc3339, to_rfc3339
from tenure.core.errors import BadRequest
from tenure.storage.meta import overview


async def list_all(call: Call) -> Reply:
    query = call.query
    wanted = overview.AuditFilter(
        actor=query.actor,
        action=query.action,
        repository=query.repository,
        since=_moment("since", query.since),
        until=_moment("until", query.until),
    )
    found, last = cut(
        await overview.audit_lines(call.db, wanted, before=cursor_number(query.cursor), limit=query.limit + 1),
        query.limit,
    )
    return Reply(AuditPage(items=[_event(line) for line in found], next=next_cursor(last.id if last else None)))


def _moment(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return from_rfc3339(text)
    except (ValueError, OverflowError):
        raise BadRequest(f"{name} must be a time with a zone, for example 2026-01-31T12:00:00Z") from None


def _event(line: overview.AuditLine) -> AuditEvent:
    return AuditEvent(
        id=line.id,
        at=to_rfc3339(line.at),
        actor=line.actor,
        address=line.address,
        request_id=line.request_id,
        action=line.action,
        repository=line.repository,
        target=line.target,
        outcome=line.outcome,
        detail=dict(line.detail),
    )
