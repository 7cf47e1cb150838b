"""Every way in which a task can end without an answer: typed, in time, and with its work kept."""

import asyncio
import time
from pathlib import Path

import httpx2
import pytest
from tests.acceptance.conftest import PLAYS, SANDBOX_ONLY
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import running_service
from tests.support.sleepers import short_sleep, until_sleeping
from tests.support.tasks import (
    Json,
    begun,
    events_of,
    frames,
    orchestrate,
    sleeping_task,
    succeed,
    until_ended,
)

WORK = "echo kept > kept.txt; echo ran"


async def ended(
    http: httpx2.AsyncClient, ending: str, sample: SourceRepository, **body: object
) -> Json:
    """A task that works first and then ends in some way; its work must be kept."""
    result = await orchestrate(http, f"{ending}: {WORK}", repo_url=str(sample.path), **body)
    assert result["status"] == "failed"
    assert result["changed_files"] == ["kept.txt"]
    assert "+kept" in result["diff"]
    assert result["answer"] == ""
    assert result == (await http.get(f"/tasks/{result['task_id']}")).json()
    return result


@SANDBOX_ONLY
@pytest.mark.parametrize(
    ("ending", "code", "word"),
    [
        ("Run, then garbage", "model_response_invalid", "GPT_OSS_URL"),
        ("Run, then no choices", "model_response_invalid", "choices"),
        ("Run, then fail", "model_unavailable", "500"),
        ("Run, then refuse", "model_refused", "LLM_API_KEY"),
        ("Run, then be cut off", "model_unavailable", "reached"),
        ("Run, then hang", "model_timeout", "3 s"),
    ],
)
async def test_the_model_endpoint_fails(
    http: httpx2.AsyncClient, sample: SourceRepository, ending: str, code: str, word: str
) -> None:
    result = await ended(http, ending, sample)

    assert result["stop_reason"] == "error"
    assert result["error"]["code"] == code
    assert word in result["error"]["detail"]


@SANDBOX_ONLY
@pytest.mark.parametrize(
    ("ending", "code", "reason"),
    [
        ("Run, then say nothing", "model_misbehaved", "invalid_turns"),
        ("Run, then call what is not there", "model_misbehaved", "invalid_turns"),
        ("Run, then call wrongly", "model_misbehaved", "invalid_turns"),
        ("Run again and again", "model_repeated_itself", "repeated_call"),
    ],
)
async def test_the_model_goes_astray(
    http: httpx2.AsyncClient, sample: SourceRepository, ending: str, code: str, reason: str
) -> None:
    result = await ended(http, ending, sample)

    assert result["error"]["code"] == code
    assert result["stop_reason"] == reason


@SANDBOX_ONLY
async def test_complaints_reach_the_model(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await ended(http, "Run, then call what is not there", sample)
    tools = [event.data for event in await events_of(http, result["task_id"])
             if event.name == "tool"]  # fmt: skip

    assert [tool["is_error"] for tool in tools] == [False, True, True, True]
    assert "There is no tool 'no_such_tool'" in tools[-1]["result"]
    assert "bash" in tools[-1]["result"]


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"max_steps": 2}, "max_steps"),
        ({"max_steps": 5}, "max_steps"),
        ({"max_tokens": 2_500}, "max_tokens"),
        ({"max_seconds": 4.0}, "max_seconds"),
    ],
)
async def test_a_budget_ends_the_task(
    http: httpx2.AsyncClient, sample: SourceRepository, budget: dict[str, float], reason: str
) -> None:
    slow = "; sleep 600" if reason == "max_seconds" else ""
    result = await orchestrate(
        http, f"Run on: {WORK}{slow}", repo_url=str(sample.path), budget=budget
    )

    assert result["status"] == "failed"
    assert result["stop_reason"] == reason
    assert result["error"]["code"] == "budget_exhausted"
    assert result["changed_files"] == ["kept.txt"]
    assert result["steps"] <= budget.get("max_steps", 40)
    assert result["receipt"]["wall_seconds"] < 300  # nobody waited for the command


@SANDBOX_ONLY
async def test_a_slow_model_uses_up_the_seconds_of_the_budget(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await ended(http, "Run, then hang", sample, budget={"max_seconds": 1.5})

    assert result["stop_reason"] == "max_seconds"
    assert result["error"]["code"] == "budget_exhausted"


async def test_nothing_of_a_command_survives_the_budget(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    url = str(sample.path)
    await orchestrate(
        http, "Run: sleep 4711 & sleep 4711", repo_url=url, budget={"max_seconds": 1.0}
    )
    result = await succeed(http, "Run: cat /proc/[0-9]*/cmdline | tr '\\0' ' '", repo_url=url)

    assert "4711" not in result["answer"].replace("cat /proc", "")


async def test_a_command_that_takes_too_long_is_killed(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    began = time.monotonic()
    result = await succeed(
        http, "Run for a second: echo begun; sleep 30; echo never", repo_url=str(sample.path)
    )

    assert time.monotonic() - began < 10
    assert "begun" in result["answer"]
    assert "timed out after 1 s" in result["answer"]
    assert "never" not in result["answer"].replace("echo never", "")


async def test_a_long_output_is_cut_and_kept_where_it_can_be_read(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await succeed(http, "Run, then read the whole: seq 1 6000", repo_url=str(sample.path))
    tool = next(event.data for event in await events_of(http, result["task_id"])
                if event.name == "tool")  # fmt: skip

    assert tool["result"].count("\n") < 3_000
    # The last line came through the cut, and a line from the cut part out of the kept file.
    assert result["answer"].split()[0] == "6000"
    assert result["answer"].splitlines()[-1] == "2998"
    assert result["diff"] == ""


async def test_an_endless_output_does_no_harm(
    http: httpx2.AsyncClient, sample: SourceRepository
) -> None:
    result = await succeed(
        http, "Run: yes | head -c 200000000; echo; echo end", repo_url=str(sample.path)
    )

    assert len(result["answer"]) < 20_000
    assert "end" in result["answer"][-20:]
    assert result["diff"] == ""


async def test_a_task_goes_on_when_its_container_is_stopped(
    http: httpx2.AsyncClient, fresh: SourceRepository
) -> None:
    url, seconds = str(fresh.path), short_sleep()
    task_id = await begun(http, f"Run: echo kept >> kept.txt; sleep {seconds}", repo_url=url)
    await until_sleeping(seconds)
    [name] = [
        event["workspace"]["container"]
        for event in (await http.get("/tasks", params={"status": "running"})).json()
        if event["task_id"] == task_id
    ]
    await http.post(f"/containers/{name}/stop")
    result = await until_ended(http, task_id)

    assert result["status"] == "succeeded", result
    # The call was interrupted, its effect undone, and then it ran once.
    assert result["diff"].count("+kept") == 1
    await succeed(http, "Run: true", repo_url=url)


async def test_a_container_is_not_removed_under_a_task(
    http: httpx2.AsyncClient, fresh: SourceRepository
) -> None:
    async with sleeping_task(http, WORK, repo_url=str(fresh.path)) as task:
        refused = await http.delete(f"/containers/{task.container}")
        await http.post(f"/tasks/{task.task_id}/cancel")
        result = await task.result()

    assert refused.status_code == 409
    assert refused.json()["code"] == "container_busy"
    assert result["status"] == "cancelled"
    assert result["changed_files"] == ["kept.txt"]
    assert (await http.delete(f"/containers/{task.container}")).status_code == 204


@SANDBOX_ONLY
async def test_the_model_goes_down_in_the_middle(runtime: str, sources: Path) -> None:
    with scripted_model(PLAYS) as model:
        settings = {"GPT_OSS_URL": f"{model.url.removesuffix('/v1')}/"}
        with running_service(runtime, [sources], settings) as service:
            async with service.client() as http:
                body = {"query": f"Run: {WORK}; sleep 1"}
                headers = {"Accept": "text/event-stream"}
                async with http.stream("POST", "/orchestrate", json=body, headers=headers) as seen:
                    async for frame in frames(seen):
                        if frame.name == "model":
                            await asyncio.to_thread(model.stop)
                        result = frame.data
                health = await http.get("/health")

    assert result["status"] == "failed"
    assert result["error"]["code"] == "model_unavailable"
    assert model.url in result["error"]["detail"]
    assert result["changed_files"] == ["kept.txt"]
    assert health.status_code == 200


async def test_a_task_can_be_cancelled_at_any_moment_of_its_beginning(
    http: httpx2.AsyncClient, fresh: SourceRepository
) -> None:
    await succeed(http, "Run: true", repo_url=str(fresh.path))  # the rest begins in a moment

    async def cancelled_after(milliseconds: int) -> str:
        task_id = await begun(http, "Run: sleep 600", repo_url=str(fresh.path))
        await asyncio.sleep(milliseconds / 1_000)
        for _ in range(2):
            response = await http.post(f"/tasks/{task_id}/cancel")
            assert response.status_code in {202, 409}, response.text
        status: str = (await until_ended(http, task_id))["status"]
        return status

    for milliseconds in range(0, 120, 4):
        assert await cancelled_after(milliseconds) == "cancelled", milliseconds
