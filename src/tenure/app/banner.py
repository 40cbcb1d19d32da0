"""What a person sees who starts the server: where it is, what it keeps its data in, how to push to it."""

from urllib.parse import urlsplit

from tenure import __version__
from tenure.config.rules import is_loopback, parse_listen, sqlite_path
from tenure.config.tree import Settings
from tenure.config.values import hide_password

_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def client_host(settings: Settings, port: int) -> str:
    """HOST:PORT as clients write it: of server.external_url, else of server.listen."""
    if settings.server.external_url:
        return urlsplit(settings.server.external_url).netloc
    host, _ = parse_listen(settings.server.listen)
    host = _ANY.get(host, f"[{host}]" if ":" in host else host)
    return f"{host}:{port}"


def banner(settings: Settings, port: int) -> str:
    """The lines printed when the server is ready."""
    host = client_host(settings, port)
    scheme = "https" if settings.server.tls_cert else "http"
    address = settings.server.external_url or f"{scheme}://{host}"
    facts = sqlite_path(settings) or hide_password(settings.database.url)
    return (
        f"Tenure {__version__} serves {address}\n"
        f"facts in {facts}, bytes in {settings.blobs.url.removeprefix('file://')}\n\n"
        f"    docker tag IMAGE {host}/IMAGE\n"
        f"    docker push {host}/IMAGE\n"
    )


def warning(settings: Settings) -> str:
    """What must be said at each start about who can reach this registry; empty when only this machine can."""
    host, _ = parse_listen(settings.server.listen)
    if is_loopback(host):
        return ""
    if settings.auth.open:
        return "open registry, as auth.open says: whoever reaches this address may push, pull and delete"
    return (
        "this version has no accounts: whoever reaches this address may push, pull and delete; let only a trusted "
        "network or an authenticating proxy reach it, or state that this is meant with --open"
    )
