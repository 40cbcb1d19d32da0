"""Where an obvious schema and what clients do collide, row by row; each is decided by a constraint.

The numbers are those of the table of collisions that the schema was corrected by. C14 and C20-C22 are about
code and locks; their tests stand with that code.
"""

import pytest

from helpers.raw_schema import (
    OK,
    REFUSED,
    Step,
    blob_digest,
    condemn_object,
    edge,
    image,
    judge,
    lacks,
    lacks_child,
    link,
    manifest,
    names,
    new_blob,
    purge,
    put_object,
    repository,
    resolve,
    restore,
    session,
    tag,
    take,
    trash,
    unlink,
    untag,
    upload,
)
from safety.sequences import (
    EDGE_LIVE,
    LINKS,
    M_BLOBS,
    M_KEY,
    OBJECT_OF_BLOB,
    OBJECT_OF_UPLOAD,
    TAGS,
    does,
    guard,
)
from tenure.storage.meta.database import Database

SETUP = does(
    "two repositories, four blobs, two images and their index",
    repository(1, "r1"), repository(2, "r2"),
    *upload(1), *upload(2), *upload(3), *upload(4),
    *image(10, 1, 2), *image(11, 1, 3), manifest(12), edge(12, 10), edge(12, 11),
)  # fmt: skip
_QUEUED = "INSERT INTO gc_queue (kind, repo_id, target_id, due_at) VALUES (3, {repo}, 1, 0)"
_TRASHED_TAG = "INSERT INTO trashed_tags (repo_id, name, manifest_id, trash, purge_at) VALUES (1, 't', 12, 1, 99)"
_FORGET_BLOB = "DELETE FROM blobs WHERE id = {}"
_UPDATE = "UPDATE manifests SET {} WHERE id = 13"

CASES: dict[str, list[Step]] = {
    "C1": [
        guard("a child of a live index is trashed", EDGE_LIVE, trash(10)),
        does("the index goes", trash(12)),
        does("then its children, one by one", trash(10)),
        does("the other one", trash(11)),
        guard("a child is purged while its index can be restored", "edge_child", purge(10)),
        does("undo of the index and what it lists", restore(10, 11, 12)),
        guard("the child is protected again", EDGE_LIVE, trash(10)),
    ],
    "C2": [
        guard("a blob of a live manifest is hidden", LINKS, unlink(1, 2)),
        does("the manifests go", trash(12), trash(10)),
        does("their blob can be hidden at once", unlink(1, 2)),
        guard("its bytes wait for the trash", M_BLOBS, _FORGET_BLOB.format(2)),
        guard("no restore without the link", LINKS, restore(10)),
        does("link first, then restore", link(1, 2), restore(10)),
        does("after the purge the bytes may go", trash(10), unlink(1, 2), purge(12, 10), _FORGET_BLOB.format(2)),
    ],
    "C3": [
        *(
            guard(f"the object of a blob becomes {state}", OBJECT_OF_BLOB, condemn_object(4, state))
            for state in (1, 3, 4, 5)
        ),
        guard("its journal row goes", OBJECT_OF_BLOB, "DELETE FROM objects WHERE id = 4"),
        does("an open upload", put_object(70), session(1, 70)),
        *(
            guard(f"the object of an open upload becomes {state}", OBJECT_OF_UPLOAD, condemn_object(70, state))
            for state in (2, 3, 4, 5)
        ),
        does("the upload is given up", "DELETE FROM uploads WHERE id = 1", condemn_object(70)),
        guard("a late close finds its object condemned", OBJECT_OF_BLOB, new_blob(70, "x'0170'")),
        guard("so does a late session", OBJECT_OF_UPLOAD, session(2, 70)),
        guard("a blob lies about the state", "blobs_o_state_ck", "UPDATE blobs SET o_state = 4 WHERE id = 4"),
        does("without link and blob row the object may go", unlink(1, 4), _FORGET_BLOB.format(4), condemn_object(4, 3)),
    ],
    "C4": [
        does("foreign, sparse and erased layers are rows with a reason", *image(13, 4), lacks(13, "x'01f1'", 1),
             lacks(13, "x'01f2'", 2), lacks(13, "x'01f3'", 3)),
        guard("without a reason", "manifest_blobs_absent_says_why_ck", lacks(13, "x'01f4'", 0)),
        guard("here, yet said to be absent", "manifest_blobs_absent_says_why_ck",
              "UPDATE manifest_blobs SET absent = 2 WHERE manifest_id = 13 AND blob_id = 4"),
        does("the layer comes and the row is resolved", *upload(5, digest="x'01f2'"),
             "UPDATE manifest_blobs SET blob_id = 5, absent = 0 WHERE digest = x'01f2' AND blob_id IS NULL"),
        guard("from then on it is pinned", LINKS, unlink(1, 5)),
    ],
    "C5": [
        does("an index before its child", manifest(13), lacks_child(13, 14)),
        guard("without a reason", "manifest_edges_absent_says_why_ck", lacks_child(13, 15, absent=0)),
        does("the child comes", *image(14, 4), resolve(14)),
        guard("from then on it is pinned", EDGE_LIVE, trash(14)),
    ],
    "C6": [
        guard("the same digest twice in one manifest", "manifest_blobs_pk", *image(13, 4, 4)),
        does("once, whatever its roles", *image(13, 4)),
    ],
    "C7": [
        does("an index may name blobs and manifests", *image(13, 4), edge(13, 10)),
        guard("the blob is pinned", LINKS, unlink(1, 4)),
        does("the image index goes, the cache still lists the child", trash(12)),
        guard("so is the manifest", EDGE_LIVE, trash(10)),
    ],
    "C8": [
        does("index and children in one statement", trash(12, 10, 11)),
        does("back in one statement", restore(10, 11, 12)),
        does("in the other order of rows", manifest(9), edge(9, 12), trash(9, 10, 11, 12)),
        does("purged in one statement", purge(9, 10, 11, 12)),
    ],
    "C9": [
        does("nested indexes and a signature are one batch", manifest(13), edge(13, 12), *image(14, 4),
             edge(13, 14, kind=2), trash(10, 11, 12, 13, 14, kind=1)),
        Step("with one time of purge", ["SELECT DISTINCT trash_batch, purge_at FROM manifests"], rows=((1, 99),)),
    ],
    "C10": [
        does("a circle of referrer, index and child", *image(20, 4), *image(21, 4), edge(20, 21, kind=2),
             manifest(22), edge(21, 22, kind=2), edge(22, 20)),
        *(guard(f"{number} alone cannot go", EDGE_LIVE, trash(number)) for number in (20, 21, 22)),
        does("the closed set can", trash(20, 21, 22, kind=1)),
        does("and is purged as one", purge(20, 21, 22)),
    ],
    "C11": [
        does("a signature of a live image", *image(20, 4), *image(21, 4), edge(20, 21, kind=2)),
        guard("is not trashed", EDGE_LIVE, trash(21, kind=1)),
        guard("nor purged", EDGE_LIVE, purge(21)),
        does("it goes with its subject", trash(20, 21, kind=1)),
    ],
    "C12": [
        does("a tag", tag("t", 12)),
        guard("does not point at trash", TAGS, trash(12)),
        does("its name waits beside it", _TRASHED_TAG, untag("t"), trash(12, kind=1)),
        guard("a tag on what is in trash", TAGS, tag("t", 12)),
        does("the name may move meanwhile", tag("t", 10)),
        guard("and then does not come back", "tags_pk", restore(12), tag("t", 12)),
        does("the kept name goes with the manifest", untag("t"), purge(12)),
        Step("nothing is left of it", ["SELECT count(*) FROM trashed_tags"], rows=((0,),)),
    ],
    "C13": [
        does("a manifest", *image(13, 4)),
        guard("live and in trash", "manifests_live_or_trash_ck", _UPDATE.format("trash = 1")),
        guard("neither", "manifests_live_or_trash_ck", _UPDATE.format("live = 0, purge_at = 9")),
        guard("in trash for ever", "manifests_purge_ck", _UPDATE.format("live = 0, trash = 1")),
        guard("half alive", "manifests_live_ck", _UPDATE.format("live = 2")),
        guard("an unknown trash", "manifests_trash_ck", _UPDATE.format("live = 0, trash = 4, purge_at = 9")),
        does("a policy trashes it", trash(13, kind=1)),
        does("a person takes it from there", _UPDATE.format("trash = 2")),
    ],
    "C15": [
        guard("two live repositories of a name", "repos_name_live", repository(3, "r1")),
        does("a deleted one frees its name", "UPDATE repos SET live = 0 WHERE id = 2", repository(3, "r2")),
        guard("and does not come back over it", "repos_name_live", "UPDATE repos SET live = 1 WHERE id = 2"),
        guard("nor does it go while it holds something", "manifests_repo_id_fk", "DELETE FROM repos WHERE id = 1"),
    ],
    "C16": [
        does("a queue row for a blob belongs to no repository", _QUEUED.format(repo=0)),
        guard("twice", "gc_queue_pk", _QUEUED.format(repo=0)),
        Step("to a repository that is NULL", [_QUEUED.format(repo="NULL")], REFUSED),
        Step("by default it is none", ["SELECT repo_id FROM gc_queue"], OK, rows=((0,),)),
    ],
    "C17": [
        does("32 bytes of two algorithms are two blobs", *upload(5, digest="x'01" + "ab" * 32 + "'"),
             *upload(6, digest="x'02" + "ab" * 32 + "'")),
        guard("the same digest is one blob", "blobs_digest_uq", put_object(7, 2), new_blob(7, blob_digest(4))),
        does("and two manifests", manifest(13, digest="x'01cc'"), manifest(14, digest="x'02cc'")),
        guard("the same digest is one manifest of a repository", "manifests_repo_id_digest_uq",
              manifest(15, digest="x'01cc'")),
        does("but another one elsewhere", manifest(15, repo=2, digest="x'01cc'")),
    ],
    "C18": [
        guard("a tag on a manifest of another repository", TAGS, tag("t", 12, repo=2)),
        guard("a manifest row in another repository", M_KEY, names(13, 4), manifest(13)),
        guard("a manifest of another repository", M_KEY, manifest(13, repo=2), names(13, 4)),
    ],
    "C19": [
        does("a session has its object", put_object(70), session(1, 70)),
        guard("one session an object", "uploads_object_id_uq", session(2, 70)),
        does("a tail below the part size has one too", put_object(71),
             "UPDATE uploads SET tail_object_id = 71, t_state = 1 WHERE id = 1"),
        guard("which is not condemned either", "uploads_tail_object_id_t_state_fk", condemn_object(71)),
        guard("a tail without its state", "uploads_tail_ck", "UPDATE uploads SET t_state = NULL WHERE id = 1"),
        does("parts", "INSERT INTO upload_parts (upload_id, part_no, etag, size) VALUES (1, 1, 'e', 5)"),
        guard("a part number twice", "upload_parts_pk",
              "INSERT INTO upload_parts (upload_id, part_no, etag, size) VALUES (1, 1, 'f', 5)"),
        does("all go with the session", "DELETE FROM uploads WHERE id = 1", condemn_object(70), condemn_object(71)),
        Step("no part is left", ["SELECT count(*) FROM upload_parts"], rows=((0,),)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row) for row in CASES])
async def test_collision(db: Database, row: str) -> None:
    judge(db, SETUP, await take(db, SETUP))
    for step in CASES[row]:
        judge(db, step, await take(db, step))
