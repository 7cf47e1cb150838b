"""Git bundles of a mirror, as a stream.

`git bundle create` leaves out every reference whose commit the receiver has already, so that a
branch that was moved back or newly made on an old commit would never arrive, and a receiver that
prunes would delete it. The format is a short list of names before a pack; writing it here keeps
every name in.

The list of commits that the receiver must have is left empty: git demands that its references
still lead to them, which a deleted branch breaks although the objects are there. After unpacking
git checks anyway that nothing is missing.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping

from orchestrator.errors import StorageFailure
from orchestrator.gateway.git_command import Git
from orchestrator.gateway.mirror import Mirror
from orchestrator.gateway.refs import PINNED, Ref


def header(refs: Mapping[str, Ref], commit: str) -> bytes:
    """The bundle up to its pack: names and their objects.

    `commit` gets a name of its own unless a branch or tag is at it.
    """
    names = {name: ref.target for name, ref in refs.items()}
    if commit not in names.values():
        names[PINNED + commit] = commit
    lines = ["# v2 git bundle"]
    lines += [f"{target} {name}" for name, target in sorted(names.items())]
    return ("\n".join(lines) + "\n\n").encode(errors="surrogateescape")


async def stream_bundle(
    git: Git, mirror: Mirror, refs: Mapping[str, Ref], commit: str, have: Iterable[str]
) -> AsyncGenerator[bytes, None]:
    """The bundle in pieces; git waits while nobody takes them and ends when nobody will.

    Raises:
        StorageFailure: The mirror is damaged.
    """
    yield header(refs, commit)
    wanted = [commit, *(ref.target for ref in refs.values()), *(f"^{name}" for name in have)]
    arguments = ("pack-objects", "--revs", "--stdout", "--thin", "--delta-base-offset", "-q")
    async with git.stream(
        *arguments, directory=mirror.directory, stdin=("\n".join(wanted) + "\n").encode()
    ) as pack:
        async for chunk in pack.chunks():
            yield chunk
        outcome = await pack.outcome()
    if not outcome.ok:
        raise StorageFailure(
            f"The mirror {mirror.directory.name} is damaged: stop Berth, delete this directory "
            "under mirrors/ in the data directory, and start again."
        )
