from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.compaction import (
    CompactionLimits,
    dated,
    garbage,
    plan_compaction,
    swept,
    with_compaction,
)
from orchestrator.domain.manifest import (
    BundleRef,
    Manifest,
    empty_manifest,
    needed_bundles,
    with_bundle,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = "b" * 40
LIMITS = CompactionLimits(max_bundles=3)


def commit(number: int) -> str:
    return f"{number:040x}"


def bundle(number: int, size: int = 10, requires: tuple[str, ...] = ()) -> BundleRef:
    sha256 = f"{number:064x}"
    return BundleRef(
        repository="code",
        key=sha256,
        sha256=sha256,
        size=size,
        tips=(commit(number),),
        requires=requires,
        bases=() if requires else (BASE,),
    )


def chain(*sizes: int) -> Manifest:
    manifest = empty_manifest("w")
    for number, size in enumerate(sizes, 1):
        requires = (commit(number - 1),) if number > 1 else ()
        manifest = with_bundle(manifest, bundle(number, size, requires))
    return manifest


def compacted_ref(tips: tuple[str, ...], **changes: object) -> BundleRef:
    fields = {"tips": tips, "requires": (), "bases": (BASE,), "key": "c", **changes}
    return bundle(999, 25).model_copy(update=fields)


def test_few_bundles_are_left_alone() -> None:
    assert plan_compaction(empty_manifest("w"), LIMITS) is None
    assert plan_compaction(chain(10, 10, 10), LIMITS) is None


def test_bundles_of_a_size_are_put_together() -> None:
    plan = plan_compaction(chain(10, 10, 10, 10), LIMITS)
    assert plan is not None
    assert [each.tips[0] for each in plan.replaces] == [commit(n) for n in (1, 2, 3, 4)]
    assert plan.tips == tuple(commit(n) for n in (1, 2, 3, 4))
    assert (plan.requires, plan.bases) == ((), (BASE,))


def test_a_large_old_bundle_is_not_copied() -> None:
    plan = plan_compaction(chain(1_000, 10, 10, 10), LIMITS)
    assert plan is not None
    assert [each.size for each in plan.replaces] == [10, 10, 10]
    assert (plan.requires, plan.bases) == ((commit(1),), ())


def test_the_newer_half_is_always_put_together() -> None:
    plan = plan_compaction(chain(1_000, 400, 100, 30, 10), LIMITS)
    assert plan is not None
    assert [each.size for each in plan.replaces] == [100, 30, 10]


def test_repositories_are_compacted_apart() -> None:
    manifest = chain(10, 10)
    for number in range(4):
        other = bundle(50 + number).model_copy(update={"repository": "docs", "key": f"d{number}"})
        manifest = with_bundle(manifest, other)
    plan = plan_compaction(manifest, LIMITS)
    assert plan is not None
    assert {each.repository for each in plan.replaces} == {plan.repository} == {"docs"}


def test_a_compaction_takes_the_place_of_what_it_replaces() -> None:
    manifest = chain(1_000, 10, 10, 10)
    plan = plan_compaction(manifest, LIMITS)
    assert plan is not None
    later = with_bundle(manifest, bundle(5, 10, (commit(2),)))
    ref = compacted_ref(plan.tips, requires=plan.requires, bases=plan.bases)
    after = with_compaction(later, plan, ref)
    assert after is not None
    assert [each.tips for each in after.bundles] == [(commit(1),), plan.tips, (commit(5),)]
    assert [each.key for each in after.retired] == [bundle(n).key for n in (2, 3, 4)]
    assert {each.at for each in after.retired} == {None}
    assert {each.at for each in dated(after, NOW).retired} == {NOW}
    restore = needed_bundles(after, "code", [commit(5)])
    assert [each.key for each in restore.bundles] == [bundle(1).key, "c", bundle(5).key]


def test_only_one_compaction_of_the_same_bundles_counts() -> None:
    manifest = chain(10, 10, 10, 10)
    plan = plan_compaction(manifest, LIMITS)
    assert plan is not None
    after = with_compaction(manifest, plan, compacted_ref(plan.tips))
    assert after is not None
    assert with_compaction(after, plan, compacted_ref(plan.tips, key="d")) is None
    assert with_compaction(after, plan, compacted_ref(plan.tips)) is None


@dataclass(frozen=True)
class Stored:
    key: str
    updated_at: datetime


def test_garbage_is_what_nobody_has_named_for_long() -> None:
    manifest = chain(10, 10, 10, 10)
    plan = plan_compaction(manifest, LIMITS)
    assert plan is not None
    undated = with_compaction(manifest, plan, compacted_ref(plan.tips))
    assert undated is not None
    after = dated(undated, NOW)
    assert dated(after, NOW + timedelta(days=1)) == after
    old = NOW - timedelta(days=30)
    objects = [Stored(key, old) for key in ("c", bundle(1).key, "orphan")]
    objects.append(Stored("young", NOW))
    before, at, later = NOW - timedelta(seconds=1), NOW, NOW + timedelta(seconds=1)
    assert [each.key for each in garbage(after, objects, before)] == ["orphan"]
    assert [each.key for each in garbage(after, objects, at)] == [
        bundle(1).key,
        "orphan",
        "young",
    ]
    assert [each.key for each in garbage(undated, objects, at)] == ["orphan", "young"]
    assert swept(undated, later).retired == undated.retired
    assert swept(after, before).retired == after.retired
    assert swept(after, later).retired == ()
    assert swept(after, later).sweeps == 1


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.integers(2, 8))
def test_compacting_to_the_end_keeps_everything_restorable(sizes: list[int], most: int) -> None:
    manifest = chain(*sizes)
    limits = CompactionLimits(max_bundles=most)
    rounds = 0
    while (plan := plan_compaction(manifest, limits)) is not None:
        rounds += 1
        ref = compacted_ref(
            plan.tips, requires=plan.requires, bases=plan.bases, key=f"c{rounds}",
            size=sum(each.size for each in plan.replaces),
        )  # fmt: skip
        after = with_compaction(manifest, plan, ref)
        assert after is not None
        assert len(after.bundles) < len(manifest.bundles)
        manifest = after
    assert len(manifest.bundles) <= most
    for number in range(1, len(sizes) + 1):
        held = {BASE}
        for each in needed_bundles(manifest, "code", [commit(number)]).bundles:
            assert held.issuperset(each.requires + each.bases)
            held.update(each.tips)
        assert commit(number) in held
