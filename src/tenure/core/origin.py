"""Where a change comes from: what audit rows, tag events and outbox events say of it."""

from typing import NamedTuple


class Origin(NamedTuple):
    """One request or one background job. `address` is the client's, through trusted proxies."""

    actor: str = "anonymous"
    address: str | None = None
    request_id: str = ""
    user_agent: str = ""
