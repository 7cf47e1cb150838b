"""What old tasks keep in object storage."""

import hashlib

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
from orchestrator.domain.thinning import ThinningLimits, thinned

BASE = "b" * 40
LIMITS = ThinningLimits(whole=2, last=4)


def commit(*parts: object) -> str:
    return hashlib.sha1(repr(parts).encode(), usedforsecurity=False).hexdigest()


def of_task(manifest: Manifest, task: str, steps: int) -> Manifest:
    """The manifest with a task of so many steps, each a bundle on the one before."""
    for step in range(1, steps + 1):
        tips = (commit(task, step), commit(task, step, "state"))
        requires = (commit(task, step - 1, "state"),) if step > 1 else ()
        sha256 = hashlib.sha256(repr(tips).encode()).hexdigest()
        bundle = BundleRef(
            repository="code",
            key=f"bundles/{sha256}",
            sha256=sha256,
            size=100,
            tips=tips,
            requires=requires,
            bases=(BASE,),
        )
        checkpoint = Checkpoint(step=step, repository="code", commit=tips[0], state=tips[1])
        manifest = with_checkpoints(with_bundle(manifest, bundle), {task: [checkpoint]})
    return manifest


def of_tasks(*steps: int) -> Manifest:
    manifest = empty_manifest("w")
    for number, count in enumerate(steps):
        manifest = of_task(manifest, f"t{number}", count)
    return manifest


def steps_of(manifest: Manifest) -> dict[str, list[int]]:
    return {task: [each.step for each in kept] for task, kept in manifest.checkpoints.items()}


def test_few_tasks_keep_everything() -> None:
    manifest = of_tasks(3, 3)
    assert thinned(manifest, LIMITS, ()) is manifest


def test_older_tasks_keep_their_last_checkpoint_and_then_none() -> None:
    manifest = thinned(of_tasks(3, 3, 3, 3, 3), LIMITS, ())
    assert steps_of(manifest) == {"t1": [3], "t2": [3], "t3": [1, 2, 3], "t4": [1, 2, 3]}
    assert thinned(manifest, LIMITS, ()) is manifest


def test_running_tasks_keep_everything() -> None:
    manifest = thinned(of_tasks(3, 3, 3, 3, 3), LIMITS, {"t0"})
    assert steps_of(manifest)["t0"] == [1, 2, 3]


def test_bundles_that_nobody_needs_are_retired() -> None:
    before = of_tasks(2, 1, 1, 1, 1)
    after = thinned(before, LIMITS, ())
    gone = before.keys() - after.keys()
    assert {each.key for each in after.retired} == gone
    assert len(gone) == 2


def test_a_manifest_does_not_grow_with_the_number_of_tasks() -> None:
    manifest, sizes = empty_manifest("w"), []
    for number in range(40):
        manifest = thinned(of_task(manifest, f"t{number}", 3), LIMITS, ())
        manifest = manifest.model_copy(update={"retired": ()})
        sizes.append(len(manifest.to_json()))
    assert max(sizes[20:]) < 1.1 * max(sizes[:10])


@given(st.lists(st.integers(1, 4), max_size=8), st.sets(st.integers(0, 7)))
def test_whatever_is_kept_can_be_brought_back(steps: list[int], running: set[int]) -> None:
    manifest = thinned(of_tasks(*steps), LIMITS, {f"t{each}" for each in running})
    for checkpoints in manifest.checkpoints.values():
        for each in checkpoints:
            held = {BASE}
            for bundle in needed_bundles(manifest, "code", each.commits).bundles:
                assert held.issuperset(bundle.requires)
                held.update(bundle.tips)
            assert held.issuperset(each.commits)
