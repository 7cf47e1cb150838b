"""Tools for the git repositories below the task's root."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from mcp_servers import processes
from mcp_servers.capture import Capture
from mcp_servers.paths import place
from mcp_servers.root import current_root
from mcp_servers.stdio import serve

TIME_LIMIT = 60.0
"""Seconds that one git command may run."""

RepoPath = Annotated[
    str, Field(description="Directory of the repository, relative to the workspace root.")
]
ContextLines = Annotated[int, Field(ge=0, le=10_000, description="Lines around each change.")]

ENVIRONMENT = frozenset(
    {
        *("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "TZ"),
        *("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
    }
)
"""The variables of this process that git gets."""

# A repository's own configuration must not make git start programs.
_SETTINGS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.quotePath=false"),
    *("-c", "color.ui=false"),
    *("-c", "commit.gpgSign=false"),
    *("-c", "log.showSignature=false"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
)
_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color")
_IDENTITY = ("-c", "user.name=Berth", "-c", "user.email=berth@localhost")
_LOG_FORMAT = "Commit: %H%nAuthor: %an <%ae>%nDate: %aI%nMessage: %B"

_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_ADDS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
_REPEATS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_REPLACES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)


@dataclass(frozen=True, slots=True)
class Repository:
    """A directory below the task's root in which git runs."""

    root: Path
    directory: Path

    async def run(self, *arguments: str) -> str:
        """Run git and return its output.

        Raises:
            ToolError: git failed; the message is its own, without paths outside the root.
        """
        code, output, errors = await self.attempt(*arguments)
        if code != 0:
            reason = errors.strip() or output.strip() or f"exit code {code}"
            raise ToolError(reason.replace(str(self.root), "."))
        return output

    async def attempt(self, *arguments: str) -> tuple[int, str, str]:
        """Run git and return its exit code, output and error text.

        Raises:
            ToolError: git is missing, could not start, or took longer than `TIME_LIMIT`.
        """
        environment = _environment(self.root)
        program = processes.find_program("git", environment)
        if program is None:
            raise ToolError("git is not installed here")
        stdout, stderr = Capture(), Capture()
        outcome = await processes.run(
            [program, "--no-pager", *_SETTINGS, *arguments],
            directory=self.directory,
            environment=environment,
            time_limit=TIME_LIMIT,
            stdout=stdout,
            stderr=stderr,
        )
        if outcome.timed_out:
            raise ToolError(f"git took longer than {TIME_LIMIT:g} s and was stopped")
        return outcome.exit_code, stdout.text(), stderr.text()


async def git_status(repo_path: RepoPath = ".") -> str:
    """Show the branch and what is staged, changed and untracked."""
    return await _repository(repo_path).run("status")


async def git_diff_unstaged(repo_path: RepoPath = ".", context_lines: ContextLines = 3) -> str:
    """Show changes of tracked files that are not staged."""
    return await _diff(repo_path, context_lines)


async def git_diff_staged(repo_path: RepoPath = ".", context_lines: ContextLines = 3) -> str:
    """Show changes that are staged for the next commit."""
    return await _diff(repo_path, context_lines, "--cached")


async def git_diff(
    target: Annotated[
        str, Field(min_length=1, description="Branch, commit or range to compare with.")
    ],
    repo_path: RepoPath = ".",
    context_lines: ContextLines = 3,
) -> str:
    """Show the difference between the files and a branch or commit, or between two (a..b)."""
    return await _diff(repo_path, context_lines, "--end-of-options", _value(target))


async def git_commit(
    message: Annotated[str, Field(min_length=1, description="The commit message.")],
    repo_path: RepoPath = ".",
) -> str:
    """Commit what is staged."""
    repository = _repository(repo_path)
    known, _, _ = await repository.attempt(
        "-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT"
    )
    identity = _IDENTITY if known != 0 else ()
    await repository.run(*identity, "commit", "--quiet", "--no-verify", f"--message={message}")
    commit = await repository.run("rev-parse", "HEAD")
    return f"Committed {commit.strip()}"


async def git_add(
    files: Annotated[
        list[str],
        Field(min_length=1, description="Files or directories to stage; ['.'] stages all."),
    ],
    repo_path: RepoPath = ".",
) -> str:
    """Stage files for the next commit."""
    await _repository(repo_path).run("add", "--", *files)
    return "Files staged"


async def git_reset(repo_path: RepoPath = ".") -> str:
    """Unstage everything. The files stay as they are."""
    await _repository(repo_path).run("reset", "--quiet")
    return "All staged changes are unstaged"


async def git_log(
    repo_path: RepoPath = ".",
    max_count: Annotated[int, Field(ge=1, le=1000, description="Most commits to show.")] = 10,
    start_timestamp: Annotated[
        str, Field(description="Only commits after this time, such as 2026-01-31 or 2 weeks ago.")
    ] = "",
    end_timestamp: Annotated[
        str, Field(description="Only commits before this time, in the same forms.")
    ] = "",
) -> str:
    """Show the newest commits of the current branch."""
    times = [
        f"{option}={value}"
        for option, value in (("--since", start_timestamp), ("--until", end_timestamp))
        if value
    ]
    output = await _repository(repo_path).run(
        "log", f"--max-count={max_count}", f"--format={_LOG_FORMAT}", *times
    )
    return output or "No commits in that time"


async def git_create_branch(
    branch_name: Annotated[str, Field(min_length=1, description="Name of the new branch.")],
    repo_path: RepoPath = ".",
    base_branch: Annotated[
        str, Field(description="Branch or commit to start at; the current one by default.")
    ] = "",
) -> str:
    """Create a branch without switching to it."""
    name, base = _value(branch_name), _value(base_branch or "HEAD")
    await _repository(repo_path).run("branch", "--no-track", name, base)
    return f"Created branch {name} at {base}"


async def git_checkout(
    branch_name: Annotated[str, Field(min_length=1, description="Branch or commit to switch to.")],
    repo_path: RepoPath = ".",
) -> str:
    """Switch to a branch. Refused if that would lose changes."""
    name = _value(branch_name)
    await _repository(repo_path).run("checkout", "--quiet", name, "--")
    return f"Switched to {name}"


async def git_show(
    revision: Annotated[
        str, Field(min_length=1, description="Commit, tag or file at a commit (commit:path).")
    ],
    repo_path: RepoPath = ".",
) -> str:
    """Show a commit with its change, or a file as it was at a commit."""
    options = ("--no-ext-diff", "--no-textconv", "--no-color", "--end-of-options")
    return await _repository(repo_path).run("show", *options, _value(revision), "--")


async def git_branch(
    branch_type: Annotated[
        Literal["local", "remote", "all"], Field(description="Which branches to list.")
    ] = "local",
    repo_path: RepoPath = ".",
    contains: Annotated[str, Field(description="Only branches that contain this commit.")] = "",
    not_contains: Annotated[
        str, Field(description="Only branches that do not contain this commit.")
    ] = "",
) -> str:
    """List branches; the current one is marked with a star."""
    options = {"local": [], "remote": ["--remotes"], "all": ["--all"]}[branch_type]
    if contains:
        options.append(f"--contains={_value(contains)}")
    if not_contains:
        options.append(f"--no-contains={_value(not_contains)}")
    return await _repository(repo_path).run("branch", "--list", *options) or "No branches"


def register(server: MCPServer) -> None:
    """Add the git tools to a server."""
    for tool, annotations in (
        (git_status, _READS),
        (git_diff_unstaged, _READS),
        (git_diff_staged, _READS),
        (git_diff, _READS),
        (git_commit, _ADDS),
        (git_add, _REPEATS),
        (git_reset, _REPLACES),
        (git_log, _READS),
        (git_create_branch, _ADDS),
        (git_checkout, _REPLACES),
        (git_show, _READS),
        (git_branch, _READS),
    ):
        server.add_tool(tool, annotations=annotations, structured_output=False)


def main() -> None:
    """Serve the git tools over stdio."""
    serve("git", register)


def _repository(path: str) -> Repository:
    root = current_root()
    with place(root, path) as spot:
        if not spot.is_directory():
            raise ToolError(f"{path}: no such directory")
        return Repository(root, root / spot.relative)


async def _diff(repo_path: str, context_lines: int, *arguments: str) -> str:
    output = await _repository(repo_path).run(
        *_DIFF, f"--unified={context_lines}", *arguments, "--"
    )
    return output or "No differences"


def _environment(root: Path) -> dict[str, str]:
    return processes.clean_environment(ENVIRONMENT) | {
        "LC_ALL": "C.UTF-8",
        # Without this, a directory that is no repository finds one above the root.
        "GIT_CEILING_DIRECTORIES": str(root.parent),
        "GIT_EDITOR": "true",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _value(text: str) -> str:
    """Return a branch or revision, refused where git could take it for an option.

    Raises:
        ToolError: it starts with a dash.
    """
    if text.startswith("-"):
        raise ToolError(f"not a valid name or revision: {text!r}")
    return text


if __name__ == "__main__":
    main()
