"""A repository gets its own container, a model works in it, an answer and a patch come back."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from tests.acceptance.conftest import API_KEY
from tests.support.repositories import SourceRepository, git, new_repository
from tests.support.service import Service
from tests.support.tasks import (
    Json,
    applied,
    changed,
    containers,
    events_of,
    orchestrate,
    succeed,
)

WRITE = "Write a function slugify(text) and a test for it."
RESULT_FIELDS = {
    *("task_id", "status", "stop_reason", "query", "answer", "changed_files", "diff", "steps"),
    *("workspace", "receipt", "error", "notices", "created_at", "finished_at"),
    *("continues", "continued_by", "forked_from", "dry_run", "commands"),
    *("model", "egress"),
}
RECEIPT_FIELDS = {
    *("prompt_tokens", "completion_tokens", "model_seconds", "tool_seconds", "wall_seconds"),
}


async def how(http: httpx2.AsyncClient, result: Json) -> str:
    """How a task came by its container."""
    events = await events_of(http, result["task_id"])
    return str(next(event.data["how"] for event in events if event.name == "container"))


async def test_lists_files(http: httpx2.AsyncClient, sample: SourceRepository) -> None:
    result = await succeed(http, "List the files in this repository", repo_url=str(sample.path))

    assert "[FILE] README.md" in result["answer"]
    assert "[DIR] src" in result["answer"]
    assert "feature.txt" not in result["answer"]
    assert result["diff"] == ""
    assert result["changed_files"] == []


async def test_summarises_the_structure(http: httpx2.AsyncClient, sample: SourceRepository) -> None:
    result = await succeed(
        http, "Summarise the structure of this repository.", repo_url=sample.path.as_uri()
    )

    assert result["answer"].startswith("6 file(s)")
    assert "# Sample" in result["answer"]


async def test_says_what_it_knows_when_no_play_fits(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await succeed(http, "Solve world hunger", repo_url=str(sample.path))

    assert "not a language model" in result["answer"]


async def test_writes_a_function_whose_patch_applies(
    http: httpx2.AsyncClient, sample: SourceRepository, tmp_path: Path
) -> None:
    result = await succeed(http, WRITE, repo_url=str(sample.path))

    assert result["changed_files"] == ["slugify.py", "test_slugify.py"]
    clone = applied(result, sample, sample.head, tmp_path / "clone")
    assert changed(clone) == ["slugify.py", "test_slugify.py"]
    tests = [sys.executable, "-B", "-m", "unittest", "test_slugify"]
    assert subprocess.run(tests, cwd=clone, check=False).returncode == 0
    assert sample.git("status", "--porcelain") == ""


async def test_the_result_has_the_shape_that_is_documented(
    http: httpx2.AsyncClient, service: Service, sample: SourceRepository
) -> None:
    result = await succeed(http, WRITE, repo_url=str(sample.path))

    assert set(result) == RESULT_FIELDS
    assert result["query"] == WRITE
    assert result["stop_reason"] == "answered"
    assert result["error"] is None
    assert result["steps"] == 7
    workspace = result["workspace"]
    assert workspace["container"] == f"repo-{workspace['id']}"
    assert workspace["runtime"] == service.runtime
    assert workspace["repositories"] == [
        {"url": sample.path.as_uri(), "name": "sample", "ref": "main", "commit": sample.head}
    ]
    receipt = result["receipt"]
    assert set(receipt) == RECEIPT_FIELDS
    assert receipt["prompt_tokens"] > 1_000
    assert receipt["completion_tokens"] > 100
    assert 0 < receipt["tool_seconds"] < receipt["wall_seconds"] < 60
    assert any("scripted model" in notice for notice in result["notices"])
    assert (await http.get(f"/tasks/{result['task_id']}")).json() == result


async def test_containers_and_workspaces_are_listed(
    http: httpx2.AsyncClient, service: Service, sample: SourceRepository
) -> None:
    result = await succeed(http, "Run: true", repo_url=str(sample.path))
    workspace = result["workspace"]

    container = (await containers(http))[workspace["container"]]
    assert container["state"] == "running"
    assert container["runtime"] == service.runtime
    assert container["workspace_id"] == workspace["id"]
    first = (await http.get("/workspaces")).json()[0]
    assert first["id"] == workspace["id"]
    assert first["repositories"] == [sample.path.as_uri()]
    assert first["container"] == workspace["container"]
    assert first["task_count"] >= 1


async def test_health_names_the_runtime_and_its_limits(
    http: httpx2.AsyncClient, service: Service
) -> None:
    health = (await http.get("/health")).json()

    assert health["status"] == "ok"
    assert health["runtime"]["name"] == service.runtime
    assert "network" in health["runtime"]["enforced"]
    assert service.runtime in health["runtime"]["reason"]
    assert health["model"]["scripted"] is False  # GPT_OSS_URL is set


async def test_every_kind_of_change_is_in_the_patch(
    http: httpx2.AsyncClient, sample: SourceRepository, tmp_path: Path
) -> None:
    command = """
        git mv 'new name.txt' 'moved here.txt'
        rm src/app.py
        printf 'changed\\0' > data.bin
        chmod -x run.sh
        ln -sfn run.sh link
        mkdir -p deep/er && echo new > 'deep/er/ü file.txt'
        echo more >> README.md
        git add -A && git commit -qm 'by the task' && echo later > later.txt
        git reset -q --soft HEAD~1
    """
    result = await succeed(http, f"Run: {command}", repo_url=str(sample.path))

    expected = [
        *("README.md", "data.bin", "deep/er/ü file.txt", "later.txt", "link"),
        *("moved here.txt", "new name.txt", "run.sh", "src/app.py"),
    ]
    clone = applied(result, sample, sample.head, tmp_path / "clone")
    assert changed(clone) == expected
    assert (clone / "data.bin").read_bytes() == b"changed\0"
    assert (clone / "run.sh").stat().st_mode & 0o111 == 0
    assert (clone / "link").readlink() == Path("run.sh")
    assert set(result["changed_files"]) >= {"moved here.txt", "deep/er/ü file.txt", "later.txt"}


async def test_work_that_the_task_committed_is_in_the_patch(
    http: httpx2.AsyncClient, sample: SourceRepository, tmp_path: Path
) -> None:
    command = (
        "echo kept > kept.txt && git add . && git commit -qm 'by the task' && git log -1 --oneline"
    )
    result = await succeed(http, f"Run: {command}", repo_url=str(sample.path))

    assert "by the task" in result["answer"]
    assert changed(applied(result, sample, sample.head, tmp_path / "clone")) == ["kept.txt"]


async def test_the_container_is_reused_and_the_tree_is_new(
    http: httpx2.AsyncClient, fresh: SourceRepository
) -> None:
    url = str(fresh.path)
    first = await succeed(http, "Run: echo mine > left.txt; git switch -qc own", repo_url=url)
    second = await succeed(http, "Run: ls; git status -sb; git branch -a", repo_url=f"{url}/")

    assert first["changed_files"] == ["left.txt"]
    assert first["workspace"]["container"] == second["workspace"]["container"]
    assert await how(http, first) == "create"
    assert await how(http, second) == "reuse"
    assert "left.txt" not in second["answer"]
    assert second["diff"] == ""


async def test_new_commits_reach_the_reused_container(
    http: httpx2.AsyncClient, fresh: SourceRepository
) -> None:
    before = await succeed(http, "Run: ls", repo_url=str(fresh.path))
    fresh.commit("second", {"newer.txt": "x"})
    after = await succeed(http, "Run: ls", repo_url=str(fresh.path))

    assert "newer.txt" not in before["answer"]
    assert "newer.txt" in after["answer"]
    assert after["workspace"]["repositories"][0]["commit"] == fresh.head


async def test_a_stopped_container_starts_again_and_a_removed_one_is_made_anew(
    http: httpx2.AsyncClient, fresh: SourceRepository
) -> None:
    url = str(fresh.path)
    name = (await succeed(http, "Run: true", repo_url=url))["workspace"]["container"]

    assert (await http.post(f"/containers/{name}/stop")).status_code == 204
    assert (await containers(http))[name]["state"] == "stopped"
    assert await how(http, await succeed(http, "Run: true", repo_url=url)) == "start"
    assert (await http.get(f"/containers/{name}/logs")).status_code == 200
    assert (await http.delete(f"/containers/{name}")).status_code == 204
    assert name not in await containers(http)
    assert await how(http, await succeed(http, "Run: true", repo_url=url)) == "create"


async def test_tasks_at_once_on_one_repository_do_not_disturb_each_other(
    http: httpx2.AsyncClient, fresh: SourceRepository
) -> None:
    def command(number: int) -> str:
        return (
            f"Run: echo {number} > shared.txt; git add .; git commit -qm n{number}; sleep 0.3; "
            "cat shared.txt; git log --format=%s"
        )

    url = str(fresh.path)
    results = await asyncio.gather(*(succeed(http, command(n), repo_url=url) for n in range(4)))

    assert len({result["workspace"]["container"] for result in results}) == 1
    for number, result in enumerate(results):
        assert result["answer"].split()[-3:] == [str(number), f"n{number}", "first"]
        assert result["changed_files"] == ["shared.txt"]
        assert f"\n+{number}\n" in result["diff"]


async def test_several_repositories_lie_side_by_side(
    http: httpx2.AsyncClient, sample: SourceRepository, fresh: SourceRepository, tmp_path: Path
) -> None:
    twin = new_repository(tmp_path / "elsewhere" / "sample")
    other = new_repository(fresh.path / "inner" / "sample")
    urls = [str(sample.path), str(other.path)]
    result = await succeed(
        http, "Run: ls; echo x >> sample/README.md; echo y >> sample-2/README.md", repo_urls=urls
    )

    assert "sample\nsample-2" in result["answer"]
    names = [each["name"] for each in result["workspace"]["repositories"]]
    assert names == ["sample", "sample-2"]
    assert result["changed_files"] == ["sample/README.md", "sample-2/README.md"]
    git(tmp_path, "clone", "--quiet", urls[0], "sample")
    git(tmp_path, "clone", "--quiet", urls[1], "sample-2")
    git(tmp_path, "apply", "-", stdin=result["diff"].encode())
    assert (tmp_path / "sample-2" / "README.md").read_text().endswith("\ny\n")
    refused = await http.post(
        "/orchestrate", json={"query": "x", "repo_urls": [*urls, str(twin.path)]}
    )
    assert refused.json()["code"] == "repository_url_refused"


async def test_a_scratch_task_leaves_nothing_but_its_checkpoints(
    http: httpx2.AsyncClient, service: Service
) -> None:
    before, files = set(await containers(http)), service.files()
    result = await succeed(http, "Run: ls -A; echo kept > made.txt")

    assert result["workspace"]["repositories"] == []
    assert result["changed_files"] == ["made.txt"]
    assert "+kept" in result["diff"]
    assert set(await containers(http)) == before
    kept = {path for path in service.files() if result["workspace"]["id"] in path}
    assert service.files() - kept == files
    assert all("/objects/" in path for path in kept)
    workspaces = [each["id"] for each in (await http.get("/workspaces")).json()]
    assert result["workspace"]["id"] not in workspaces


@pytest.mark.parametrize(("ref", "has_feature"), [("feature", True), ("v1", False), (None, False)])
async def test_starts_from_a_branch_or_tag(
    http: httpx2.AsyncClient, sample: SourceRepository, ref: str | None, has_feature: bool
) -> None:
    result = await succeed(http, "Run: ls", repo_url=str(sample.path), ref=ref)

    assert ("feature.txt" in result["answer"]) is has_feature
    commit = sample.commit_of(ref or "main")
    assert result["workspace"]["repositories"][0]["commit"] == commit


async def test_starts_from_a_commit(
    http: httpx2.AsyncClient, sample: SourceRepository, tmp_path: Path
) -> None:
    first = sample.commit_of("v1")
    result = await succeed(http, "Run: ls; rm 'old name.txt'", repo_url=str(sample.path), ref=first)

    assert "old name.txt" in result["answer"]
    assert result["workspace"]["repositories"][0]["commit"] == first
    assert changed(applied(result, sample, first, tmp_path / "clone")) == ["old name.txt"]


async def test_nothing_secret_and_no_network_is_inside(
    http: httpx2.AsyncClient, service: Service, sample: SourceRepository
) -> None:
    command = (
        "env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; cat .git/config; "
        f"ls /root /home {service.data_dir} {sample.path}; cat /proc/net/dev; "
        "(exec 3<>/dev/tcp/1.1.1.1/53) 2>&1; id -u"
    )
    result = await orchestrate(http, f"Run: {command}", repo_url=str(sample.path))

    answer = result["answer"]
    assert API_KEY not in answer
    assert "postgres" not in answer.lower()
    assert "eth0" not in answer
    assert "Network is unreachable" in answer
    assert f"ls: cannot access '{service.data_dir}'" in answer
    assert "\n0\n" not in answer
