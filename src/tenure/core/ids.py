"""ULIDs: 26 characters, sortable by time, 80 random bits (github.com/ulid/spec)."""

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_ulid() -> str:
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_object_key() -> str:
    """`b/<2 hex>/<ulid>`: an opaque key that is used once and never again.

    The two hex digits come from fresh random bits, so that keys spread over a store's partitions.
    """
    return f"b/{secrets.token_hex(1)}/{new_ulid()}"


def new_session() -> str:
    """128 random bits for an upload session: nobody can guess another's."""
    return secrets.token_urlsafe(16)
