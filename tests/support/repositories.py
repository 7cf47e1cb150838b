"""Small real git repositories for tests."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": os.devnull,
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "2024-01-02T03:04:05Z",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_COMMITTER_DATE": "2024-01-02T03:04:05Z",
}

BINARY = bytes(range(256)) * 4


def git(directory: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Run git in a directory; its output without the last line break."""
    done = subprocess.run(
        ("git", *arguments),
        cwd=directory,
        env=_ENVIRONMENT,
        input=stdin,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"git {arguments}: {done.stderr.decode()}")
    return done.stdout.decode().rstrip("\n")


class SourceRepository:
    """A repository with a worktree, as a user has one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def head(self) -> str:
        """The commit that HEAD is at."""
        return self.commit_of("HEAD")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run git in the worktree."""
        return git(self.path, *arguments, stdin=stdin)

    def commit_of(self, name: str) -> str:
        """The commit a name stands for."""
        return self.git("rev-parse", "--verify", f"{name}^{{commit}}")

    def write(self, name: str, content: str | bytes, *, executable: bool = False) -> None:
        """Put a file into the worktree."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(0o755 if executable else 0o644)

    def commit(self, message: str, files: Mapping[str, str | bytes] | None = None) -> str:
        """Write files, commit everything in the worktree, and return the commit."""
        for name, content in (files or {}).items():
            self.write(name, content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={message}")
        return self.head


def empty_repository(path: Path) -> SourceRepository:
    """A repository without a commit; HEAD names `main`."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    return SourceRepository(path)


def new_repository(path: Path, files: Mapping[str, str | bytes] | None = None) -> SourceRepository:
    """A repository with one commit on `main`."""
    repository = empty_repository(path)
    repository.commit("first", files or {"README.md": "# Sample\n"})
    return repository


def sample_repository(path: Path) -> SourceRepository:
    """A repository with a bit of everything.

    `main` has two commits: text, nested, binary and executable files and a symbolic link, then a
    rename. `feature` adds a file; `v1` is an annotated tag of the first commit, `light` a plain
    tag of the second.
    """
    repository = empty_repository(path)
    repository.write("run.sh", "#!/bin/sh\necho hello\n", executable=True)
    (path / "link").symlink_to("README.md")
    repository.commit(
        "first",
        {
            "README.md": "# Sample\n",
            "src/app.py": "print('hello')\n",
            "data.bin": BINARY,
            "old name.txt": "kept as it is\n" * 20,
        },
    )
    repository.git("tag", "--annotate", "--message=first release", "v1")
    repository.git("mv", "old name.txt", "new name.txt")
    repository.commit("rename")
    repository.git("tag", "light")
    repository.git("switch", "--quiet", "--create", "feature")
    repository.commit("feature", {"feature.txt": "new\n"})
    repository.git("switch", "--quiet", "main")
    return repository


def bare_copy(source: SourceRepository, path: Path) -> Path:
    """A bare copy of a repository, as a server has one."""
    git(source.path, "clone", "--quiet", "--bare", "--no-local", str(source.path), str(path))
    return path
