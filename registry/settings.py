"""Settings of the data plane: sections `[push]` and `[pull]`."""

from typing import Literal

import msgspec

from tenure.storage.settings import Duration, duration


class PushSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[push]`"""

    #: content a manifest may name without it being here: none, index (the children of an index), all (layers too)
    allow_missing: Literal["none", "index", "all"] = "index"
    #: how long content stays after "yes, it exists" or an upload, before a manifest names it
    lease: Duration = duration("24h")
    #: an upload without a new chunk for this long is given up
    upload_expiry: Duration = duration("24h")
    #: an upload whose replica died can go on after this long; a running request renews its claim on it
    upload_claim: Duration = duration("60s")
    #: a request that sends no byte for this long is ended
    idle_timeout: Duration = duration("60s")
    #: on DELETE of a child of a live index: false refuses, true severs it from the index
    sever_children: bool = False


class PullSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[pull]`"""

    #: Location headers: false sends paths, true full URLs (needs server.external_url behind a proxy)
    absolute_urls: bool = False
