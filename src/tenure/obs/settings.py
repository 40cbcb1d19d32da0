"""Settings of what an operator sees: sections `[log]` and `[metrics]`."""

from typing import Literal

import msgspec


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`"""

    #: least severity that is written
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: auto (text on a terminal, JSON elsewhere), json, console
    format: Literal["auto", "json", "console"] = "auto"
    #: write one line for each request
    access: bool = True


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[metrics]`"""

    #: answer /metrics and measure stores and database
    enabled: bool = True
    #: HOST:PORT of a listener of its own for /metrics and the health checks; empty: beside the registry only
    listen: str = ""
