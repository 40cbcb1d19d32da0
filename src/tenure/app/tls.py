"""TLS by certificate files that may be replaced while the server runs."""

import asyncio
import ssl
from pathlib import Path

import structlog

#: seconds between two looks at the files
INTERVAL = 10.0


class CertificateUnusable(Exception):
    """The certificate files cannot be used; the message says why."""


class Certificate:
    """A server context made of two PEM files. New handshakes use what the files held at the last reload."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises CertificateUnusable."""
        self._chain, self._key = chain, key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._stamp()
        self._load(self.context)

    def reload_if_changed(self) -> bool:
        """Takes up changed files; True when it did. Raises CertificateUnusable and keeps the old ones."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        # A pair that does not fit together must not half-replace the one in use.
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self.context)
        self._seen = stamp
        return True

    async def watch(self) -> None:
        """Looks at the files until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                if self.reload_if_changed():
                    structlog.get_logger().info("certificate reloaded", tls_cert=str(self._chain))
            except CertificateUnusable as error:
                structlog.get_logger().error("certificate not reloaded", error=str(error))

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._chain, self._key)
        except (OSError, ssl.SSLError) as error:
            raise CertificateUnusable(f"{self._chain} and {self._key} cannot be used: {error}") from None

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        try:
            stats = [path.stat() for path in (self._chain, self._key)]
        except OSError as error:
            raise CertificateUnusable(f"{error.filename} cannot be read: {error.strerror}") from None
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)
