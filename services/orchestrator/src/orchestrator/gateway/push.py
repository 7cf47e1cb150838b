"""Makes and deletes one branch on a server, and never anything but that one."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BranchTaken, PushRefused
from orchestrator.gateway.failures import failure
from orchestrator.gateway.git_command import Git
from orchestrator.gateway.git_process import GitOutcome
from orchestrator.gateway.mirror import pinned
from orchestrator.gateway.mirrors import Opened
from orchestrator.gateway.refs import BRANCHES, Advertisement

MAX_REASON_CHARS = 200
_STALE = ("stale info", "already exists", "fetch first", "non-fast-forward")


@dataclass(frozen=True, slots=True)
class BranchPush:
    """One branch of one repository, at one commit of ours.

    Attributes:
        git: Runs the commands.
        scratch: The repository that has the commit.
        opened: The mirror of the repository, and its remote.
        branch: The branch's short name.
        commit: Where it is to be.
        timeout_seconds: Longest time one exchange with the server may take.
    """

    git: Git
    scratch: Path
    opened: Opened
    branch: str
    commit: str
    timeout_seconds: float

    @property
    def ref(self) -> str:
        """The branch's full name."""
        return BRANCHES + self.branch

    async def check(self) -> bool:
        """See `ports.Staged.check`."""
        if stands_in_the_way(self.opened.advertised, self.ref, self.commit):
            raise self._taken()
        if self.opened.advertised.refs.get(self.ref) == self.commit:
            return True
        self._require(await self._push("--dry-run", f"{self.commit}:{self.ref}", expected=""))
        return False

    async def push(self) -> None:
        """See `ports.Staged.push`."""
        outcome = await self._push(f"{self.commit}:{self.ref}", expected="")
        # An answer may be lost, and another call may have been first.
        if not outcome.ok and await self._current() != self.commit:
            self._require(outcome)

    async def withdraw(self) -> None:
        """See `ports.Staged.withdraw`."""
        outcome = await self._push(f":{self.ref}", expected=self.commit)
        if not outcome.ok and await self._current() == self.commit:
            self._require(outcome)

    async def _push(self, *arguments: str, expected: str) -> GitOutcome:
        *options, refspec = arguments
        return await self.git.run(
            *pinned(self.opened.remote),
            *("push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-signed"),
            *("--recurse-submodules=no", f"--force-with-lease={self.ref}:{expected}"),
            *options,
            *("--", self.opened.mirror.location(self.opened.remote), refspec),
            directory=self.scratch,
            protocol=self.opened.remote.scheme,
            access=self.opened.remote.access,
            timeout_seconds=self.timeout_seconds,
        )

    async def _current(self) -> str | None:
        async with self.opened.mirror.lock:
            advertised = await self.opened.mirror.list(self.opened.remote)
        return advertised.refs.get(self.ref)

    def _require(self, outcome: GitOutcome) -> None:
        if outcome.ok:
            return
        reason = rejection(outcome.stdout.decode(errors="replace"))
        if reason is None:
            access = self.opened.remote.access
            raise failure(outcome, self.opened.remote.url, known=bool(access))
        if any(words in reason for words in _STALE):
            raise self._taken()
        remote = self.opened.remote
        raise PushRefused(
            f"{remote.url} does not take the branch {self.branch}: "
            f"{remote.access.hidden(reason)[:MAX_REASON_CHARS]}. Choose another name, or have its "
            "rules changed.",
            host=remote.url.host,
            branch=self.branch,
        )

    def _taken(self) -> BranchTaken:
        url = self.opened.remote.url
        return BranchTaken(
            f"{url} has the branch {self.branch} already, or one whose name is in its way, and it "
            "is not ours: choose another name.",
            host=url.host,
            branch=self.branch,
        )


def stands_in_the_way(advertised: Advertisement, ref: str, commit: str) -> bool:
    """True if the branch is the default one, is elsewhere, or cannot be beside another.

    git keeps branches as files: `a` and `a/b` cannot both be there.
    """
    if ref == advertised.head_ref:
        return True
    return any(
        (name == ref and target != commit)
        or name.startswith(f"{ref}/")
        or ref.startswith(f"{name}/")
        for name, target in advertised.refs.items()
    )


def rejection(porcelain: str) -> str | None:
    """Why a reference was rejected, from what `git push --porcelain` prints; None if none was."""
    for line in porcelain.splitlines():
        flag, _, rest = line.partition("\t")
        if flag == "!":
            reason = rest.partition("\t")[2]
            return "".join(char for char in reason if char.isprintable())
    return None
