"""Settings of access: section `[auth]`."""

import msgspec


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[auth]`"""

    #: true states that anybody who reaches the address may push, pull and delete; it shortens the start-up warning
    open: bool = False
