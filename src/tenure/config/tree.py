"""The settings tree: sections of the layers below, and `[server]`, which binds them."""

from typing import Literal

import msgspec

from tenure.auth.settings import AuthSettings
from tenure.gc.settings import GcSettings
from tenure.obs.settings import LogSettings, MetricsSettings
from tenure.registry.settings import PullSettings, PushSettings
from tenure.storage.settings import BlobsSettings, DatabaseSettings, Duration, S3Settings, duration


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`"""

    #: HOST:PORT to listen on; [::]:5000 for every address, port 0 for any free one
    listen: str = "127.0.0.1:5000"
    #: the address clients use, when a proxy or another name stands before this one: https://registry.example.com
    external_url: str = ""
    #: folder for tenure.db and blobs/; empty: $XDG_DATA_HOME/tenure
    data_dir: str = ""
    #: all, api (serves, no background work) or worker (background work and health checks only)
    role: Literal["all", "api", "worker"] = "all"
    #: how long requests may go on after SIGTERM before they are cut
    drain: Duration = duration("5m")
    #: how long the server goes on accepting after SIGTERM, already unready, so that load balancers notice
    drain_delay: Duration = duration("0")
    #: certificate chain (PEM); with tls_key it switches TLS on, and a changed file is taken up by itself
    tls_cert: str = ""
    #: private key of tls_cert (PEM)
    tls_key: str = ""
    #: networks whose X-Forwarded-* and Forwarded headers are believed: 10.0.0.0/8
    trusted_proxies: tuple[str, ...] = ()
    #: requests worked on at once; further ones get 429, before the process suffers
    max_requests: int = 512


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set; `tenure config check` prints it."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    blobs: BlobsSettings = BlobsSettings()
    s3: S3Settings = S3Settings()
    auth: AuthSettings = AuthSettings()
    push: PushSettings = PushSettings()
    pull: PullSettings = PullSettings()
    gc: GcSettings = GcSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
