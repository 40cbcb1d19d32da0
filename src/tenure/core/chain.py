"""ChainIDs: one name for "these layers, in this order" (image-spec config.md, Layer ChainID)."""

import json

from tenure.core.digest import Digest
from tenure.core.errors import TenureError

MAX_CONFIG = 4 << 20  # bytes; a larger config is not indexed
MAX_LAYERS = 1000


def chain_ids(config: bytes) -> tuple[Digest, ...]:
    """The ChainID after each layer, base first; empty for what is not an image config with diff ids.

    Never raises: a config nobody can read must not fail a push.
    """
    try:
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
        diffs = [Digest.parse(text) for text in diff_ids[: MAX_LAYERS + 1]]
    except (ValueError, KeyError, TypeError, RecursionError, TenureError):
        return ()
    if len(diffs) > MAX_LAYERS:
        return ()
    chain: list[Digest] = []
    for diff in diffs:
        chain.append(Digest.of(f"{chain[-1]} {diff}".encode()) if chain else diff)
    return tuple(chain)
