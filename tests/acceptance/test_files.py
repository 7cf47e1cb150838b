"""Files for a task: given with it, uploaded before, or from its repository."""

import base64
import hashlib
from urllib.parse import quote

import httpx2
import pytest
from tests.support.repositories import BINARY, SourceRepository
from tests.support.tasks import Json, succeed

SHOW = "Run: cd files && find . -type f -print0 | sort -z | xargs -0 sha256sum; git status --short"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def placed(result: Json) -> dict[str, str]:
    """The digests of the files that a task found under files/."""
    lines = [line.split("  ./") for line in result["answer"].splitlines() if "  ./" in line]
    return {name: found for found, name in lines}


async def test_given_files_lie_under_files_and_stay_out_of_the_patch(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    files = [
        {"name": "notes.txt", "content": "Grüße\n"},
        {"name": "deep/er/data.bin", "content": base64.b64encode(BINARY).decode(),
         "encoding": "base64"},
        {"name": "a name with [odd] *characters*.txt", "content": ""},
    ]  # fmt: skip
    result = await succeed(http, f"{SHOW}; touch new.txt", repo_url=str(sample.path), files=files)

    assert placed(result) == {
        "notes.txt": digest("Grüße\n".encode()),
        "deep/er/data.bin": digest(BINARY),
        "a name with [odd] *characters*.txt": digest(b""),
    }
    assert "?? " not in result["answer"]
    # The command ran on in files/, and what it made there is its own.
    assert result["changed_files"] == ["files/new.txt"]


async def test_a_file_that_the_task_changed_still_stays_out_of_the_patch(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await succeed(
        http,
        "Run: echo more >> files/notes.txt; git add -A; git commit -qm all; echo x > real.txt",
        repo_url=str(sample.path),
        files=[{"name": "notes.txt", "content": "x"}],
    )

    assert result["changed_files"] == ["real.txt"]
    assert "notes" not in result["diff"]


@pytest.mark.parametrize("name", ["report.csv", "deep/er/ä b+c%20d.txt", "name.git"])
async def test_an_uploaded_file_is_listed_used_and_deleted(
    http: httpx2.AsyncClient, sample: SourceRepository, name: str
) -> None:
    url = f"/files/{quote(name)}"
    answer = await http.put(url, content=BINARY)
    assert answer.status_code == 200
    assert answer.json()["name"] == name
    assert answer.json()["size"] == len(BINARY)
    assert name in [each["name"] for each in (await http.get("/files")).json()]

    result = await succeed(http, SHOW, repo_url=str(sample.path), files=[name])
    assert placed(result) == {name: digest(BINARY)}
    assert result["diff"] == ""

    assert (await http.put(url, content=b"other")).json()["size"] == 5
    assert (await http.delete(url)).status_code == 204
    assert name not in [each["name"] for each in (await http.get("/files")).json()]
    again = await http.delete(url)
    assert again.status_code == 404
    assert again.json()["code"] == "file_not_found"


async def test_a_path_in_the_repository_names_a_file(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await succeed(http, SHOW, repo_url=str(sample.path), files=["src/app.py", "data.bin"])

    assert placed(result) == {
        "src/app.py": digest(b"print('hello')\n"),
        "data.bin": digest(BINARY),
    }


async def test_a_path_is_read_at_the_ref(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await succeed(
        http, SHOW, repo_url=str(sample.path), ref="feature", files=["feature.txt"]
    )

    assert placed(result) == {"feature.txt": digest(b"new\n")}


async def test_an_upload_goes_before_a_path_in_the_repository(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    await http.put("/files/README.md", content=b"uploaded")
    try:
        result = await succeed(http, SHOW, repo_url=str(sample.path), files=["README.md"])
    finally:
        await http.delete("/files/README.md")

    assert placed(result) == {"README.md": digest(b"uploaded")}


async def test_a_scratch_task_takes_files_too(http: httpx2.AsyncClient) -> None:
    result = await succeed(http, SHOW, files=[{"name": "notes.txt", "content": "x"}])

    assert placed(result) == {"notes.txt": digest(b"x")}
    assert result["diff"] == ""


async def test_with_several_repositories_a_path_begins_with_the_name_of_one(
    http: httpx2.AsyncClient, sample: SourceRepository, fresh: SourceRepository
) -> None:
    urls = [str(sample.path), str(fresh.path)]
    result = await succeed(http, SHOW, repo_urls=urls, files=["sample/src/app.py"])

    assert placed(result) == {"sample/src/app.py": digest(b"print('hello')\n")}
    body = {"query": "x", "repo_urls": urls, "files": ["src/app.py"]}
    refused = await http.post("/orchestrate", json=body)
    assert refused.json()["code"] == "unknown_file"


async def test_an_unknown_name_is_said(http: httpx2.AsyncClient, sample: SourceRepository) -> None:
    files = ["src/app.py", "no/such.txt"]
    body = {"query": "x", "repo_url": str(sample.path), "files": files}
    refused = await http.post("/orchestrate", json=body)

    assert refused.status_code == 422
    assert refused.json()["code"] == "unknown_file"
    assert refused.json()["file"] == "no/such.txt"
    assert "'no/such.txt'" in refused.json()["detail"]


async def test_a_file_of_the_repository_is_not_overwritten(
    http: httpx2.AsyncClient, fresh: SourceRepository
) -> None:
    fresh.commit("has files/", {"files/notes.txt": "ours"})
    url = str(fresh.path)
    files = [{"name": "notes.txt", "content": "x"}]
    refused = await http.post("/orchestrate", json={"query": "x", "repo_url": url, "files": files})
    beside = await succeed(http, SHOW, repo_url=url, files=[{"name": "b.txt", "content": "x"}])

    assert refused.status_code == 422
    assert refused.json()["code"] == "file_conflict"
    assert set(placed(beside)) == {"notes.txt", "b.txt"}
    assert beside["diff"] == ""
