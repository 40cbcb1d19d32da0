"""Where a change comes from: what audit rows, tag events and outbox events say of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """One request or one background job. `address` is the client's, through trusted proxies."""

    actor: str = "anonymous"
    address: str | None = None
    request_id: str = ""
    user_agent: str = ""
