"""Signed URLs for GET, made by hand: AWS Signature Version 4 in the query.

(docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html.) The signing key changes once a day, so
one URL costs one SHA-256 and one HMAC; botocore takes forty times as long.
"""

import bisect
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

#: A URL that lives for less is not handed out, seconds: clients come back to it after a queue or a retry.
SHORTEST_LIFE = 20 * 60
#: The longest life SigV4 allows, seconds.
LONGEST_LIFE = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Frozen credentials; `expires` in seconds since 1970, None when they never end."""

    access_key: str
    secret_key: str
    token: str | None = None
    expires: float | None = None


async def freeze(credentials: Any, now: float) -> SigningKey:
    """Refresh botocore credentials where they need it, and note when they end."""
    frozen = await credentials.get_frozen_credentials()
    expires = None
    refresh_needed = getattr(credentials, "refresh_needed", None)
    if refresh_needed is not None and refresh_needed(LONGEST_LIFE):
        # The only public question is "do they end within n seconds?".
        expires = now + bisect.bisect_left(range(LONGEST_LIFE), True, key=lambda n: bool(refresh_needed(n))) - 1
    return SigningKey(frozen.access_key, frozen.secret_key, frozen.token, expires)


class UrlSigner:
    """Signs GET URLs of one bucket at one endpoint. `life` in seconds."""

    def __init__(self, endpoint: str, bucket: str, *, path_style: bool, region: str, life: int) -> None:
        parts = urlsplit(endpoint)
        host = _host(parts.scheme, parts.netloc)
        base = quote(parts.path.rstrip("/"), safe="/-_.~")
        self._host = host if path_style else f"{bucket}.{host}"
        self._path = f"{base}/{bucket}/" if path_style else f"{base}/"
        self._origin = f"{parts.scheme}://{self._host}"
        self._region = region
        self.life = min(max(life, SHORTEST_LIFE), LONGEST_LIFE)
        self._cached: tuple[str, SigningKey] | None = None
        self._day_key: hmac.HMAC = hmac.new(b"", digestmod=hashlib.sha256)
        self._fixed = ""

    def sign(self, key: SigningKey, name: str, media_type: str | None, now: float) -> str | None:
        """A URL for the object `name`; None when the credentials end within SHORTEST_LIFE."""
        life = self.life
        if key.expires is not None:
            life = min(life, int(key.expires - now))
            if life < SHORTEST_LIFE:
                return None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        if self._cached != (stamp[:8], key):
            self._derive(stamp[:8], key)
        # In the order of the canonical query: by name, upper case first.
        query = f"{self._fixed}&X-Amz-Date={stamp}&X-Amz-Expires={life}"
        if key.token:
            query += f"&X-Amz-Security-Token={quote(key.token, safe='-_.~')}"
        query += "&X-Amz-SignedHeaders=host"
        if media_type:
            query += f"&response-content-type={quote(media_type, safe='-_.~')}"
        path = self._path + quote(name, safe="/-_.~")
        request = f"GET\n{path}\n{query}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD"
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = self._day_key.copy()
        signature.update(to_sign.encode())
        return f"{self._origin}{path}?{query}&X-Amz-Signature={signature.hexdigest()}"

    def _derive(self, day: str, key: SigningKey) -> None:
        secret = f"AWS4{key.secret_key}".encode()
        for step in (day, self._region, "s3", "aws4_request"):
            secret = hmac.digest(secret, step.encode(), "sha256")
        self._day_key = hmac.new(secret, digestmod=hashlib.sha256)
        credential = quote(f"{key.access_key}/{day}/{self._region}/s3/aws4_request", safe="-_.~")
        self._fixed = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}"
        self._cached = (day, key)


def _host(scheme: str, netloc: str) -> str:
    """Clients leave the usual port out of the Host header, which is signed."""
    name = netloc.rpartition("@")[2].lower()
    return name.removesuffix({"http": ":80", "https": ":443"}.get(scheme, "\n"))
