"""`python -m tenure.app.alive`: exit code 0 when the server of this machine's settings answers /livez.

For the image's health check: no shell, no curl, the same settings as the server.
"""

import ssl
import sys
import urllib.request

from tenure.config.load import load
from tenure.config.rules import parse_listen

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def url(listen: str, tls: bool) -> str:
    """Where this machine reaches a server that listens on `listen`."""
    host, port = parse_listen(listen)
    host = _ANY.get(host, host)
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/livez"


def main() -> int:
    server = load().settings.server
    # The certificate names the registry, not the loopback address.
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(url(server.listen, bool(server.tls_cert)), timeout=4, context=context) as answer:
            return 0 if answer.status == 200 else 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
