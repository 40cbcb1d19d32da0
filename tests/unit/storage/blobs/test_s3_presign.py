"""Signed URLs are those botocore would sign, and never outlive their credentials."""

import datetime
import time
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiobotocore.credentials import AioRefreshableCredentials
from aiobotocore.session import get_session

from tenure.storage.blobs.s3_client import client_config
from tenure.storage.blobs.s3_presign import SHORTEST_LIFE, SigningKey, UrlSigner, freeze
from tenure.storage.settings import S3Settings

KEY = SigningKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NAME = "some prefix+/b/0f/01M0000000000000000000000A"


async def botocore_url(endpoint: str, key: SigningKey, *, path_style: bool, media_type: str | None) -> str:
    settings = S3Settings(endpoint=endpoint, region="eu-west-3", path_style="on" if path_style else "off")
    session = get_session()
    async with session.create_client(
        "s3",
        region_name=settings.region,
        endpoint_url=endpoint,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        aws_session_token=key.token,
        config=client_config(settings, "bucket"),
    ) as client:
        parameters = {"Bucket": "bucket", "Key": NAME}
        if media_type:
            parameters["ResponseContentType"] = media_type
        return str(await client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=3600))


@pytest.mark.parametrize("token", [None, "a+session/token=="])
@pytest.mark.parametrize("media_type", [None, "application/vnd.oci.image.layer.v1.tar+gzip"])
@pytest.mark.parametrize("path_style", [True, False])
@pytest.mark.parametrize("endpoint", ["https://store.example", "http://127.0.0.1:9000", "https://store.example:443"])
async def test_the_signature_is_botocores(
    endpoint: str, path_style: bool, media_type: str | None, token: str | None
) -> None:
    if "127" in endpoint and not path_style:
        path_style = True  # an address has no names below it
    key = SigningKey(KEY.access_key, KEY.secret_key, token)
    wanted = urlsplit(await botocore_url(endpoint, key, path_style=path_style, media_type=media_type))
    query = dict(parse_qsl(wanted.query))
    stamp = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    signer = UrlSigner(endpoint, "bucket", path_style=path_style, region="eu-west-3", life=3600)
    for _ in range(2):  # the second time from the cached key
        made = urlsplit(signer.sign(key, NAME, media_type, stamp.timestamp()) or "")
        assert dict(parse_qsl(made.query)) == query
        assert made.path == wanted.path
        assert made.netloc == wanted.netloc.removesuffix(":443")


def test_a_new_day_and_a_new_key_are_signed_anew() -> None:
    signer = UrlSigner("https://store.example", "bucket", path_style=True, region="r", life=3600)
    day = 1_800_000_000.0
    other = SigningKey("OTHER", "secret")
    urls = [
        signer.sign(KEY, "n", None, day),
        signer.sign(KEY, "n", None, day + 86400),
        signer.sign(other, "n", None, day),
    ]
    fresh = UrlSigner("https://store.example", "bucket", path_style=True, region="r", life=3600)
    assert urls[2] == fresh.sign(other, "n", None, day)
    assert len(set(urls)) == 3


def test_a_url_never_outlives_its_credentials() -> None:
    signer = UrlSigner("https://store.example", "bucket", path_style=True, region="r", life=3600)
    now = 1_800_000_000.0
    ending = SigningKey("A", "s", "t", expires=now + 2000)
    assert "X-Amz-Expires=2000&" in (signer.sign(ending, "n", None, now) or "")
    assert signer.sign(ending, "n", None, now + 2001 - SHORTEST_LIFE) is None


def test_a_life_below_the_shortest_is_lengthened() -> None:
    assert UrlSigner("https://s", "b", path_style=True, region="r", life=5).life == SHORTEST_LIFE


async def test_the_end_of_credentials_is_found() -> None:
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5000)
    credentials = AioRefreshableCredentials("A", "s", "t", end, None, "test")
    key = await freeze(credentials, time.time())
    assert (key.access_key, key.secret_key, key.token) == ("A", "s", "t")
    assert key.expires is not None
    assert end.timestamp() - 2 <= key.expires <= end.timestamp()
