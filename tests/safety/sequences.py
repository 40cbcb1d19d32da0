"""The life of a registry in 65 transactions on the bare schema, one after the other.

The first half builds every shape that clients push; the GUARD steps are the mistakes that code could make, and
the constraint that must refuse each. The order of deletes is the one of the conformance suite: tags, then
manifests in reverse order of their push, then blobs.
"""

from helpers.raw_schema import (
    REFUSED,
    Step,
    blob_digest,
    condemn_object,
    edge,
    hold,
    image,
    lacks,
    lacks_child,
    link,
    manifest,
    manifest_digest,
    names,
    new_blob,
    purge,
    put_object,
    repository,
    resolve,
    restore,
    session,
    tag,
    trash,
    unlink,
    untag,
    upload,
)

M_BLOBS, LINKS, EDGE_LIVE = "manifest_blobs_blob_id_fk", "manifest_blobs_link_repo_blob_id_fk", "edge_child_live"
M_KEY = "manifest_blobs_manifest_id_repo_id_m_live_fk"
OBJECT_OF_BLOB, OBJECT_OF_UPLOAD = "blobs_object_id_o_state_fk", "uploads_object_id_o_state_fk"
TAGS, HOLDS = "tags_manifest_id_repo_id_m_live_fk", "holds_manifest_id_m_live_fk"


def guard(title: str, by: str, *statements: str) -> Step:
    return Step(f"GUARD {title}", statements, REFUSED, by)


def does(title: str, *statements: str) -> Step:
    return Step(title, statements)


BEFORE = does("two repositories", repository(1, "r1"), repository(2, "r2"))

_KEEP_TAG = (
    "INSERT INTO trashed_tags (repo_id, name, manifest_id, trash, purge_at) "
    "SELECT repo_id, name, manifest_id, 2, 99 FROM tags WHERE name = 't'"
)
_LINKS_BACK = (
    "INSERT INTO repo_blobs (repo_id, blob_id, lease_until) SELECT DISTINCT repo_id, blob_id, 100 FROM manifest_blobs "
    "WHERE manifest_id IN (10, 11, 12, 14) AND blob_id IS NOT NULL ON CONFLICT DO NOTHING"
)
_TAGS_BACK = (
    "INSERT INTO tags (repo_id, name, manifest_id) SELECT repo_id, name, manifest_id FROM trashed_tags "
    "WHERE manifest_id = 12 ON CONFLICT DO NOTHING"
)
_SEVER = "UPDATE manifest_edges SET child_id = NULL, absent = 4 WHERE child_id = 10 AND kind = 1"
_OF_REPO_1 = "SELECT id FROM manifests WHERE repo_id = 1 AND live = 1"
_FORGET_REFERRER = "DELETE FROM manifest_edges WHERE child_id = 21 AND kind = 2"

SEQUENCES = [
    *(does(f"upload of blob {blob}", *upload(blob)) for blob in range(1, 9)),
    does("the bytes of a blob under sha512 are a blob of their own", *upload(50, digest="x'02" + "00" * 8 + "'")),
    does("a mount is a second link", link(2, 1)),
    does("push of two images that share a layer", *image(10, 1, 2), *image(11, 1, 3)),
    does("an image whose config is its layer names it once", *image(13, 4)),
    does("push of an index of both, tagged", manifest(12), edge(12, 10), edge(12, 11), tag("t", 12)),
    does("an index of that index", manifest(14), edge(14, 12)),
    does("an index whose entry is a blob, as build caches are", *image(15, 5)),
    does("a layer that lies elsewhere: named, not here", *image(16, 2), lacks(16, "x'01ff'", 1)),
    does("an index whose child is not here yet", manifest(17), lacks_child(17, 18)),
    guard("absent without a reason", "manifest_blobs_absent_says_why_ck", lacks(16, "x'01fe'", 0)),
    does(
        "an upload closes: its session goes, its object lives, its blob is there",
        put_object(80),
        session(8, 80),
        "DELETE FROM uploads WHERE id = 8",
        "UPDATE objects SET state = 2, digest = x'0180' WHERE id = 80 AND state = 1",
        new_blob(80, "x'0180'"),
        link(1, 80),
    ),
    does("the missing child comes and its edge is resolved", *image(18, 2), resolve(18)),
    does("the same bytes as two manifests, by two algorithms", *image(19, 2), manifest(190, digest="x'02bbbb'")),
    guard("trash of a tagged manifest", TAGS, trash(12)),
    guard("trash of the child of a live index", EDGE_LIVE, trash(10)),
    guard("the link of a live manifest goes", LINKS, unlink(1, 2)),
    guard("a named blob goes", "repo_blobs_blob_id_fk", "DELETE FROM blobs WHERE id = 2"),
    guard("the object of a blob is condemned", OBJECT_OF_BLOB, condemn_object(2)),
    guard(
        "a live manifest names a blob that its repository does not show", LINKS,
        repository(3, "r3"), manifest(31, repo=3), names(31, 2, repo=3),
    ),
    guard("a row says that a live manifest is in trash", M_KEY, names(13, 6, live=0)),
    guard("a tag points into another repository", TAGS, tag("x", 12, repo=2)),
    does("the tag goes, its name is kept in trash", _KEEP_TAG, untag("t")),
    does("delete of the outer index", trash(14)),
    does("delete of the index", trash(12)),
    does("delete of its first child, while the index is only in trash", trash(10)),
    does("delete of its second child", trash(11)),
    does("delete of a blob that only trash names", unlink(1, 3)),
    does("delete of a blob that another repository shows too", unlink(1, 1)),
    guard("the bytes go while trash names them", M_BLOBS, "DELETE FROM blobs WHERE id = 3"),
    guard("restore without the links", LINKS, restore(11)),
    does(
        "undo: links first, then all of the image at once, then tags",
        _LINKS_BACK, restore(10, 11, 12, 14), _TAGS_BACK, "DELETE FROM trashed_tags WHERE manifest_id = 12",
    ),
    Step(
        "its rows demand their links again",
        ["SELECT count(*) FROM manifest_blobs WHERE manifest_id IN (10, 11) AND link_repo = 1"], rows=((4,),),
    ),
    guard("a link goes after undo", LINKS, unlink(1, 3)),
    does("delete of a child by name: the live index is severed from it", _SEVER, trash(10)),
    does("it is pushed again: the index is whole", restore(10), resolve(10)),
    does("a policy trashes a whole image in one statement", untag("t"), trash(10, 11, 12, 14, kind=1)),
    does("purge of parents and children in one statement", purge(10, 11, 12, 14)),
    does("link, blob and object follow", unlink(1, 3), "DELETE FROM blobs WHERE id = 3", condemn_object(3, state=3)),
    does("the same content again, under another key", *upload(60, digest=blob_digest(3))),
    does("a signed image", *image(20, 2), *image(21, 2), edge(20, 21, kind=2), tag("s", 20)),
    guard("the collector trashes the signature of a live image", EDGE_LIVE, trash(21, kind=1)),
    does("delete of a referrer by name while its subject lives", _FORGET_REFERRER, trash(21)),
    does("delete of a subject while referrers exist", restore(21), edge(20, 21, kind=2), untag("s"), trash(20)),
    Step("the referrer lives on", ["SELECT live FROM manifests WHERE id = 21"], rows=((1,),)),
    does("a hold on a live manifest", hold(1, 21)),
    guard("trash of a held manifest", HOLDS, trash(21)),
    does(
        "a hold on a digest that is not here",
        "INSERT INTO holds (id, kind, digest, source) VALUES (2, 1, x'0177', 'c')",
    ),
    does(
        "a circle: an image, its referrer, and an index that refers to that and lists the image",
        *image(40, 2), *image(41, 2), edge(40, 41, kind=2), manifest(42), edge(41, 42, kind=2), edge(42, 40),
    ),
    Step("one member alone cannot go", [trash(40)], REFUSED, EDGE_LIVE),
    does("all of them together can", trash(40, 41, 42, kind=1)),
    does("and are purged together", purge(40, 41, 42)),
    does("an open upload", put_object(70), session(1, 70)),
    guard("the object of an open upload is condemned", OBJECT_OF_UPLOAD, condemn_object(70)),
    does("cancel: first the session, then the object", "DELETE FROM uploads WHERE id = 1", condemn_object(70)),
    guard("a condemned object becomes a blob", OBJECT_OF_BLOB, new_blob(70, "x'0170'")),
    does(
        "delete of a repository; its name is free at once",
        "DELETE FROM tags WHERE repo_id = 1", "DELETE FROM holds", trash(_OF_REPO_1),
        "UPDATE repos SET live = 0 WHERE id = 1", repository(9, "r1"),
    ),
    does(
        "purge of the old one",
        "DELETE FROM manifests WHERE repo_id = 1", "DELETE FROM repo_blobs WHERE repo_id = 1",
        "DELETE FROM repos WHERE id = 1",
    ),
]  # fmt: skip

assert len(SEQUENCES) == 65
assert manifest_digest(18) == "x'01aa0012'"
