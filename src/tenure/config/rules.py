"""What settings must satisfy together, and what the empty ones stand for."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from tenure.config.tree import Settings
from tenure.config.values import hide_password, show
from tenure.core.units import parse_size
from tenure.storage.settings import LEAST_MEMORY_BUDGET


class ConfigError(Exception):
    """A setting is wrong; the message is one sentence that names it and where it was set."""


def resolve(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The same with the empty defaults filled in: data_dir, database.url, blobs.url."""
    folder = settings.server.data_dir
    if not folder:
        base = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        folder = str(Path(base) / "tenure")
    path = Path(folder).expanduser().absolute()
    replace = msgspec.structs.replace
    return replace(
        settings,
        server=replace(settings.server, data_dir=str(path)),
        database=replace(settings.database, url=settings.database.url or f"sqlite:///{path / 'tenure.db'}"),
        blobs=replace(settings.blobs, url=settings.blobs.url or f"file://{quote(str(path / 'blobs'))}"),
    )


def sqlite_path(settings: Settings) -> Path | None:
    """The file of a SQLite database, or None when the database is Postgres."""
    url = settings.database.url
    return Path(url.removeprefix("sqlite:///")).absolute() if url.startswith("sqlite:") else None


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPv6]:PORT` -> host and port; ValueError says what is accepted."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} must be HOST:PORT, for example 127.0.0.1:5000 or [::]:5000")
    return host.strip("[]") or "0.0.0.0", int(port)


def is_loopback(host: str) -> bool:
    """True for names and addresses that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(settings: Settings, origins: Mapping[str, str]) -> None:
    """ConfigError for the first rule that does not hold."""
    for name, problem in _problems(settings):
        raise ConfigError(f"{name}: {problem} (from {origins[name]})")


def _problems(settings: Settings) -> list[tuple[str, str]]:
    return [(name, problem) for name, problem in (*_server(settings), *_stores(settings)) if problem]


def _server(settings: Settings) -> list[tuple[str, str]]:
    server = settings.server
    found = [
        ("server.listen", _listen(server.listen)),
        ("server.external_url", _external(server.external_url)),
        ("server.trusted_proxies", _networks(server.trusted_proxies)),
        ("metrics.listen", _listen(settings.metrics.listen) if settings.metrics.listen else ""),
    ]
    if server.max_requests < 1:
        found.append(("server.max_requests", "must be at least 1"))
    if bool(server.tls_cert) != bool(server.tls_key):
        key, other = ("tls_key", "tls_cert") if server.tls_cert else ("tls_cert", "tls_key")
        found.append((f"server.{other}", f"TLS needs server.{key} too"))
    if server.role != "all" and settings.database.url.startswith("sqlite:"):
        found.append(("server.role", f"{server.role} needs a database that several processes share: postgresql://..."))
    return found


def _stores(settings: Settings) -> list[tuple[str, str]]:
    found = [
        ("database.url", _scheme(settings.database.url, ("sqlite:///", "postgresql://", "postgres://"))),
        ("blobs.url", _scheme(settings.blobs.url, ("file:///", "s3://"))),
        ("database.pool_size", "must be at least 1" if settings.database.pool_size < 1 else ""),
        ("s3.parts_in_flight", "must be at least 1" if settings.s3.parts_in_flight < 1 else ""),
        ("s3.max_connections", "must be at least 1" if settings.s3.max_connections < 1 else ""),
    ]
    if settings.blobs.memory_budget < LEAST_MEMORY_BUDGET:
        least = show(LEAST_MEMORY_BUDGET)
        found.append(("blobs.memory_budget", f"must be at least {least}, or not one part of an upload has room"))
    if settings.s3.part_size < parse_size("5MiB"):
        found.append(("s3.part_size", "a part of a multipart upload has at least 5MiB"))
    if bool(settings.s3.access_key) != bool(settings.s3.secret_key):
        key, other = ("secret_key", "access_key") if settings.s3.access_key else ("access_key", "secret_key")
        found.append((f"s3.{other}", f"needs s3.{key} too"))
    if settings.blobs.redirect == "on" and not settings.blobs.url.startswith("s3://"):
        found.append(("blobs.redirect", "a folder has no address to send clients to; use auto or off"))
    return found


def _listen(text: str) -> str:
    try:
        parse_listen(text)
    except ValueError as error:
        return str(error)
    return ""


def _external(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query):
        return f"{text!r} must be a scheme and a host, for example https://registry.example.com"
    return ""


def _networks(networks: tuple[str, ...]) -> str:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            return f"{error}; write for example 10.0.0.0/8"
    return ""


def _scheme(url: str, accepted: tuple[str, ...]) -> str:
    if url.startswith(accepted):
        return ""
    return f"{hide_password(url)!r} must begin with {' or '.join(accepted)}"
