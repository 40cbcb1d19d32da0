"""The table: every address of the admin API. Whatever is not here does not exist."""

from tenure.api import audit, manifests, openapi, repositories, tags
from tenure.api.route import PageQuery, Route
from tenure.api.schemas import (
    AuditPage,
    AuditQuery,
    DeleteQuery,
    KinPage,
    Manifest,
    ManifestPage,
    ManifestsQuery,
    MoveQuery,
    Removal,
    RepositoriesQuery,
    Repository,
    RepositoryPage,
    Tag,
    TagEventPage,
    TagMove,
    TagPage,
    TagRestore,
    TagTarget,
)

_TAGS = "/repositories/{repository}/tags"
_TAG = _TAGS + "/{tag}"
_MANIFESTS = "/repositories/{repository}/manifests"
_MANIFEST = _MANIFESTS + "/{digest}"

_REPOSITORIES = (
    Route(
        name="repository.list", method="GET", path="/repositories", group="repositories",
        handler=repositories.list_all, action="anyone", query=RepositoriesQuery, answer=RepositoryPage,
        summary="List repositories",
        description="Repositories that hold a live manifest and that the caller may pull from, by name.",
    ),
    Route(
        name="repository.show", method="GET", path="/repositories/{repository}", group="repositories",
        handler=repositories.show, etag=repositories.etag, action="pull", answer=Repository,
        summary="Show a repository", description="Its counts, and the bytes that its live manifests name.",
    ),
    Route(
        name="repository.delete", method="DELETE", path="/repositories/{repository}", group="repositories",
        handler=repositories.delete, etag=repositories.etag, action="delete", mutates=True,
        query=DeleteQuery, answer=Removal,
        summary="Delete a repository",
        description="Every tag and manifest goes to the trash at once, running uploads end, and the name is free. "
        "Refused with 409 and the reasons while an image in it is in use.",
    ),
)  # fmt: skip

_OF_TAGS = (
    Route(
        name="tag.list", method="GET", path=_TAGS, group="tags",
        handler=tags.list_all, action="pull", query=PageQuery, answer=TagPage,
        summary="List tags", description="With the manifest each one points at, in the order of their names.",
    ),
    Route(
        name="tag.show", method="GET", path=_TAG, group="tags",
        handler=tags.show, etag=tags.etag, action="pull", answer=Tag,
        summary="Show a tag", description="Where it points, since when, and how often it was moved.",
    ),
    Route(
        name="tag.move", method="PUT", path=_TAG, group="tags",
        handler=tags.move, etag=tags.etag, action="push", mutates=True,
        query=MoveQuery, body=TagTarget, answer=TagMove,
        summary="Point a tag at a manifest",
        description="Creates or moves a tag; the manifest must be in the same repository. With If-Match only where "
        "the tag still is as the caller saw it, with `If-None-Match: *` only where there is none.",
    ),
    Route(
        name="tag.delete", method="DELETE", path=_TAG, group="tags",
        handler=tags.delete, etag=tags.etag, action="delete", mutates=True,
        query=DeleteQuery, answer=Removal,
        summary="Delete a tag", description="The name goes at once; the manifest it pointed at stays.",
    ),
    Route(
        name="tag.history", method="GET", path=_TAG + "/history", group="tags",
        handler=tags.history, action="pull", query=PageQuery, answer=TagEventPage,
        summary="Show the history of a tag",
        description="Every move, newest first, with who made it and why: also of a tag that is gone. 404 for one that "
        "never was.",
    ),
    Route(
        name="tag.restore", method="POST", path=_TAG + "/restore", group="tags",
        handler=tags.restore, action="push", mutates=True, query=MoveQuery, body=TagRestore, answer=TagMove,
        summary="Take a tag back to a point of its history",
        description="Points the tag at what it named after an event; where that event deleted it, at what it named "
        "before. The manifest must still be there.",
    ),
    Route(
        name="repository.history", method="GET", path="/repositories/{repository}/history", group="tags",
        handler=tags.history, action="pull", query=PageQuery, answer=TagEventPage,
        summary="Show the history of all tags of a repository",
        description="Every move of every tag, newest first.",
    ),
)  # fmt: skip

_OF_MANIFESTS = (
    Route(
        name="manifest.list", method="GET", path=_MANIFESTS, group="manifests",
        handler=manifests.list_all, action="pull", query=ManifestsQuery, answer=ManifestPage,
        summary="List manifests", description="Live manifests, newest first, with the tags that point at them.",
    ),
    Route(
        name="manifest.show", method="GET", path=_MANIFEST, group="manifests",
        handler=manifests.show, etag=manifests.etag, action="pull", answer=Manifest,
        summary="Show a manifest",
        description="What it names and what names it: blobs with sizes, children with platforms, parents, "
        "referrers, tags, who pushed it and when.",
    ),
    Route(
        name="manifest.delete", method="DELETE", path=_MANIFEST, group="manifests",
        handler=manifests.delete, etag=manifests.etag, action="delete", mutates=True,
        query=DeleteQuery, answer=Removal,
        summary="Delete a manifest",
        description="It goes to the trash with its tags. Refused with 409 and the reasons while it is in use.",
    ),
    Route(
        name="manifest.ancestors", method="GET", path=_MANIFEST + "/ancestors", group="manifests",
        handler=manifests.ancestors, action="pull", answer=KinPage,
        summary="Show what an image is built on",
        description="Images whose layers are the lower layers of this one, nearest first, in every repository the "
        "caller may pull from.",
    ),
    Route(
        name="manifest.descendants", method="GET", path=_MANIFEST + "/descendants", group="manifests",
        handler=manifests.descendants, action="pull", answer=KinPage,
        summary="Show what is built on an image",
        description="Images whose lower layers are the layers of this one, in every repository the caller may pull "
        "from.",
    ),
)  # fmt: skip

_OF_THE_REGISTRY = (
    Route(
        name="audit.list", method="GET", path="/audit", group="registry",
        handler=audit.list_all, action="admin", query=AuditQuery, answer=AuditPage,
        summary="List audit events", description="Who did what, when and from where, newest first.",
    ),
    Route(
        name="openapi.show", method="GET", path="/openapi.json", group="registry",
        handler=openapi.show, action="anyone", answer=None,
        summary="Show this description", description="The OpenAPI 3.1 document of this interface.",
    ),
)  # fmt: skip

ROUTES = (*_REPOSITORIES, *_OF_TAGS, *_OF_MANIFESTS, *_OF_THE_REGISTRY)
