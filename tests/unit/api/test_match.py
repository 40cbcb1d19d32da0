"""Paths are split before they are decoded, decoded once, and checked by each parameter's grammar."""

import pytest

from tenure.api.match import Matcher
from tenure.api.routes import ROUTES
from tenure.core.errors import BadRequest, DigestInvalid, NameInvalid, NotFound, TagInvalid, Unsupported

MATCHER = Matcher(ROUTES)
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("path", "name", "params"),
    [
        ("/repositories", "repository.list", {}),
        ("/repositories/app", "repository.show", {"repository": "app"}),
        ("/repositories/team%2Fapp", "repository.show", {"repository": "team/app"}),
        ("/repositories/team%2fapp/tags", "tag.list", {"repository": "team/app"}),
        ("/repositories/tags/tags/tags", "tag.show", {"repository": "tags", "tag": "tags"}),
        ("/repositories/a%2Ftags%2Fb/tags/v1", "tag.show", {"repository": "a/tags/b", "tag": "v1"}),
        ("/repositories/app/tags/history", "tag.show", {"repository": "app", "tag": "history"}),
        ("/repositories/app/tags/v1/history", "tag.history", {"repository": "app", "tag": "v1"}),
        (f"/repositories/app/manifests/{DIGEST}", "manifest.show", {"repository": "app", "digest": DIGEST}),
        (
            f"/repositories/app/manifests/{DIGEST.replace(':', '%3A')}",
            "manifest.show",
            {"repository": "app", "digest": DIGEST},
        ),
        ("/repositories/%61pp", "repository.show", {"repository": "app"}),
    ],
)
def test_finds(path: str, name: str, params: dict[str, str]) -> None:
    route, found = MATCHER.match("GET", path)
    assert route.name == name
    assert found == params


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", NotFound),
        ("/", NotFound),
        ("/repositories/", NameInvalid),
        ("/repositories/team/app", NotFound),
        ("/repositories//tags", NameInvalid),
        ("/Repositories", NotFound),
        ("/repositories/app/../tags", NotFound),
        ("/repositories/..", NameInvalid),
        ("/repositories/..%2Fapp", NameInvalid),
        ("/repositories/%2e%2e", NameInvalid),
        ("/repositories/app%00", NameInvalid),
        ("/repositories/app%252Fb", NameInvalid),
        ("/repositories/app%ff", BadRequest),
        ("/repositories/app\udcff", BadRequest),
        ("/repositories/APP", NameInvalid),
        ("/repositories/" + "a" * 256, NameInvalid),
        ("/repositories/app/tags/.hidden", TagInvalid),
        ("/repositories/app/tags/a%2Fb", TagInvalid),
        ("/repositories/app/manifests/latest", DigestInvalid),
        ("/repositories/app/manifests/sha256:xyz", DigestInvalid),
        ("/repositories/app/manifests/md5:" + "a" * 32, DigestInvalid),
    ],
)
def test_refuses(path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        MATCHER.match("GET", path)


def test_a_wrong_method_is_told_the_right_ones() -> None:
    with pytest.raises(Unsupported) as refused:
        MATCHER.match("PATCH", "/repositories/app/tags/v1")
    assert refused.value.headers["Allow"] == "DELETE, GET, HEAD, PUT"


def test_head_is_get() -> None:
    assert MATCHER.match("HEAD", "/repositories")[0].name == "repository.list"
