import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.manifest import (
    BundleRef,
    Checkpoint,
    Manifest,
    empty_manifest,
    needed_bundles,
    with_bundle,
    with_checkpoints,
)
from orchestrator.errors import BundleIncomplete, ManifestUnreadable, StaleLease

BASE = "b" * 40


def commit(number: int) -> str:
    return f"{number:040x}"


def bundle(
    tips: Sequence[int],
    requires: Sequence[int] = (),
    bases: Sequence[str] = (),
    repository: str = "code",
    size: int = 10,
) -> BundleRef:
    sha256 = hashlib.sha256(f"{repository}{tips}{requires}{size}".encode()).hexdigest()
    return BundleRef(
        repository=repository,
        key=f"bundles/{sha256}",
        sha256=sha256,
        size=size,
        tips=tuple(map(commit, tips)),
        requires=tuple(map(commit, requires)),
        bases=tuple(bases),
    )


def checkpoint(step: int, number: int, repository: str = "code") -> Checkpoint:
    return Checkpoint(step=step, repository=repository, commit=commit(number))


def manifest_of(*bundles: BundleRef) -> Manifest:
    manifest = empty_manifest("w")
    for each in bundles:
        manifest = with_bundle(manifest, each)
    return manifest


FULL = with_checkpoints(
    manifest_of(bundle([1], bases=[BASE]), bundle([2, 3], [1])),
    {"t1": [checkpoint(1, 1), checkpoint(2, 3)]},
).written_by(7)


def test_a_manifest_comes_back_from_its_json() -> None:
    assert Manifest.from_json(FULL.to_json(), "w") == FULL


def spoiled(**changes: Any) -> bytes:
    return json.dumps(json.loads(FULL.to_json()) | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"null",
        b"[]",
        b"{}",
        FULL.to_json()[:-1],
        spoiled(version=0),
        spoiled(version="1"),
        spoiled(workspace_id="other"),
        spoiled(generation=-1),
        spoiled(generation="7"),
        spoiled(unknown=1),
        spoiled(bundles=[{}]),
        spoiled(checkpoints={"t": [{"step": 0, "repository": "r", "commit": "a" * 40}]}),
        spoiled(checkpoints={"t": [{"step": 1, "repository": "r", "commit": "HEAD"}]}),
    ],
)
def test_a_damaged_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestUnreadable, match="damaged"):
        Manifest.from_json(content, "w")


def test_a_manifest_of_a_newer_release_is_refused_as_such() -> None:
    with pytest.raises(ManifestUnreadable, match=r"version 2.*install a newer"):
        Manifest.from_json(spoiled(version=2, shape="unknown to us"), "w")


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_else(content: bytes) -> None:
    with pytest.raises(ManifestUnreadable):
        Manifest.from_json(content, "w")


def test_an_older_lease_is_refused() -> None:
    assert FULL.written_by(7) == FULL
    assert FULL.written_by(8).generation == 8
    with pytest.raises(StaleLease) as caught:
        FULL.written_by(6)
    assert caught.value.status == 409


def test_a_bundle_that_brings_nothing_new_changes_nothing() -> None:
    assert with_bundle(FULL, bundle([3, 1], size=99)) is FULL


def test_the_same_commit_of_another_repository_is_something_else() -> None:
    other = with_bundle(FULL, bundle([1], repository="docs"))
    assert len(other.bundles) == 3
    with pytest.raises(BundleIncomplete):
        with_bundle(FULL, bundle([9], [1], repository="docs"))


def test_a_bundle_must_build_on_what_is_stored() -> None:
    with pytest.raises(BundleIncomplete, match=commit(8)):
        with_bundle(FULL, bundle([9], [1, 8]))


def test_a_checkpoint_must_be_stored() -> None:
    with pytest.raises(BundleIncomplete, match=commit(9)):
        with_checkpoints(FULL, {"t2": [checkpoint(1, 2), checkpoint(2, 9)]})
    with pytest.raises(BundleIncomplete):
        with_checkpoints(FULL, {"t2": [checkpoint(1, 2, "docs")]})


def test_checkpoints_are_kept_in_order_and_once() -> None:
    manifest = with_checkpoints(FULL, {"t1": [checkpoint(3, 2)], "t2": [checkpoint(1, 1)]})
    manifest = with_checkpoints(manifest, {"t1": [checkpoint(2, 2), checkpoint(1, 1)]})
    assert manifest.checkpoints == {
        "t1": (checkpoint(1, 1), checkpoint(2, 2), checkpoint(3, 2)),
        "t2": (checkpoint(1, 1),),
    }


def test_only_needed_bundles_are_restored_in_order() -> None:
    first, second = bundle([1], bases=[BASE]), bundle([2], bases=["c" * 40])
    third, fourth = bundle([3], [1]), bundle([4], [3])
    manifest = manifest_of(first, second, third, fourth)
    assert needed_bundles(manifest, "code", [commit(4)]).bundles == (first, third, fourth)
    assert needed_bundles(manifest, "code", [commit(4)]).bases == (BASE,)
    assert needed_bundles(manifest, "code", [commit(2)]).bundles == (second,)
    assert needed_bundles(manifest, "code", [commit(1), commit(2)]).bases == (BASE, "c" * 40)
    assert needed_bundles(manifest, "code", []).bundles == ()
    with pytest.raises(BundleIncomplete):
        needed_bundles(manifest, "code", [commit(5)])
    with pytest.raises(BundleIncomplete):
        needed_bundles(manifest, "docs", [commit(1)])
