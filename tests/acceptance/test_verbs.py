"""Tasks are spoken to, continued, forked and compared; nothing said is lost or heard twice."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from tests.acceptance.conftest import PLAYS, SANDBOX_ONLY
from tests.support.overheard import Overheard, check_legal, overheard, texts
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import Service
from tests.support.sleepers import short_sleep, until_sleeping
from tests.support.tasks import Json, begun, events_of, succeed, until_ended

ALL = ["one", "two", "three", "four"]
OTHER_MODEL = "another-model"
LAST = 8


@dataclass(slots=True)
class Scene:
    """A service of one test, and a model whose requests are kept."""

    service: Service
    model: Overheard
    http: httpx2.AsyncClient

    async def killed(self) -> None:
        """Kill the service and start it again."""
        await self.http.aclose()
        self.service.process.kill()
        await asyncio.to_thread(self.service.wait)
        await asyncio.to_thread(self.service.start)
        self.http = self.service.client()


@pytest.fixture
async def scene(own_service: Service) -> AsyncIterator[Scene]:
    with scripted_model(PLAYS) as scripted:
        async with overheard(scripted.url) as model:
            own_service.settings = {"GPT_OSS_URL": model.url, "LLM_MODELS": f"{OTHER_MODEL}, third"}
            await asyncio.to_thread(own_service.start)
            scene = Scene(own_service, model, own_service.client())
            yield scene
            await scene.http.aclose()
            await asyncio.to_thread(own_service.stop)


async def say(http: httpx2.AsyncClient, task_id: str, text: str, key: str = "") -> Json:
    headers = {"Idempotency-Key": key} if key else {}
    response = await http.post(f"/tasks/{task_id}/messages", json={"text": text}, headers=headers)
    assert response.status_code == 202, response.text
    task: Json = response.json()
    assert response.headers["location"] == f"/tasks/{task['task_id']}"
    return task


async def fork(
    http: httpx2.AsyncClient, task_id: str, step: int, key: str = "", **body: object
) -> Json:
    headers = {"Idempotency-Key": key} if key else {}
    response = await http.post(
        f"/tasks/{task_id}/fork", json={"step": step, **body}, headers=headers
    )
    assert response.status_code == 202, response.text
    task: Json = response.json()
    return task


async def refused(response: httpx2.Response, status: int, code: str) -> Json:
    problem: Json = response.json()
    assert (response.status_code, problem["code"]) == (status, code), response.text
    return problem


def added(diff: str) -> list[str]:
    """The lines that a diff adds."""
    lines = diff.splitlines()
    return [line[1:] for line in lines if line.startswith("+") and not line.startswith("+++")]


def printed(task: Json) -> list[str]:
    """What the command that a task's answer tells of has printed."""
    answer: str = task["answer"]
    return answer.partition("stdout:\n")[2].splitlines()


async def diff(http: httpx2.AsyncClient, task_id: str, **between: object) -> Json:
    params: Any = {name.rstrip("_"): value for name, value in between.items()}
    response = await http.get(f"/tasks/{task_id}/diff", params=params)
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


async def names_of(http: httpx2.AsyncClient, task_id: str) -> list[str]:
    return [event.name for event in await events_of(http, task_id)]


async def test_a_task_that_has_ended_is_continued(scene: Scene, fresh: SourceRepository) -> None:
    http, url = scene.http, str(fresh.path)
    first = await succeed(http, "Run: echo one > a.txt; echo 'v*' > .gitignore; mkdir v; echo said",
                          repo_url=url)  # fmt: skip
    second = await until_ended(
        http, (await say(http, first["task_id"], "Run: ls -d v; echo two >> a.txt"))["task_id"]
    )

    assert second["status"] == "succeeded", second
    assert printed(second) == ["v"]  # ignored files are still there
    assert (second["continues"], second["query"]) == (
        first["task_id"],
        "Run: ls -d v; echo two >> a.txt",
    )
    # The patch has both; of the steps and the cost, its own.
    assert added(second["diff"]) == ["v*", "one", "two"]
    assert second["steps"] == first["steps"] == 3
    assert added((await diff(http, second["task_id"]))["diff"]) == ["two"]
    # The model was shown the whole conversation, once each.
    check_legal(scene.model.last)
    assert texts(scene.model.last, "user") == [first["query"], second["query"]]
    assert texts(scene.model.last, "assistant")[1].endswith("said")
    # It is a chain: the first is continued once.
    response = await http.post(f"/tasks/{first['task_id']}/messages", json={"text": "x"})
    problem = await refused(response, 409, "task_continued")
    assert problem["continued_by"] == second["task_id"]
    again = (await http.get(f"/tasks/{first['task_id']}")).json()
    assert again["continued_by"] == second["task_id"]
    third = await succeed(
        http, "Run: cat a.txt files/more.txt", continue_from=second["task_id"],
        files=[{"name": "more.txt", "content": "more"}],
    )  # fmt: skip
    assert printed(third) == ["one", "two", "more"]
    check_legal(scene.model.last)
    assert len(texts(scene.model.last, "user")) == 3


@SANDBOX_ONLY
async def test_a_running_task_hears_a_message_at_its_next_model_call(
    scene: Scene, fresh: SourceRepository
) -> None:
    http, seconds = scene.http, short_sleep()
    task_id = await begun(http, f"Steps: {seconds}", repo_url=str(fresh.path))
    await until_sleeping(seconds)
    for _ in range(2):
        told = await say(http, task_id, "Mind the umlauts.", key="a")
    await say(http, task_id, "And the accents.", key="b")
    response = await http.post(
        f"/tasks/{task_id}/messages", json={"text": "Else."}, headers={"Idempotency-Key": "a"}
    )
    await refused(response, 409, "key_reused")
    task = await until_ended(http, task_id)

    assert told["task_id"] == task_id
    assert (task["status"], task["steps"]) == ("succeeded", LAST)
    heard = [event for event in await events_of(http, task_id) if event.name == "message"]
    assert [event.data["text"] for event in heard] == ["Mind the umlauts.", "And the accents."]
    assert {event.data["step"] for event in heard} == {5}
    assert texts(scene.model.last, "user")[1:] == ["Mind the umlauts.", "And the accents."]
    check_legal(scene.model.last)
    # Sent again when it has ended: it was heard already.
    assert (await say(http, task_id, "Mind the umlauts.", key="a"))["task_id"] == task_id


@SANDBOX_ONLY
async def test_a_message_that_comes_while_the_model_answers_is_heard(
    scene: Scene, fresh: SourceRepository
) -> None:
    http, model = scene.http, scene.model
    model.held_from = 2
    task_id = await begun(http, "Run: echo one > a.txt", repo_url=str(fresh.path))
    await model.asked(2)
    await say(http, task_id, "Run: echo late > late.txt; echo heard")
    model.gate.set()
    task = await until_ended(http, task_id)

    assert task["status"] == "succeeded", task
    assert printed(task) == ["heard"]
    assert sorted(task["changed_files"]) == ["a.txt", "late.txt"]
    assert task["continued_by"] is None
    check_legal(model.last)
    assert (await names_of(http, task_id)).count("message") == 1
    assert len((await http.get("/tasks")).json()) == 1


@SANDBOX_ONLY
async def test_a_killed_service_still_hears(scene: Scene, fresh: SourceRepository) -> None:
    seconds = short_sleep()
    task_id = await begun(scene.http, f"Steps: {seconds}", repo_url=str(fresh.path))
    await until_sleeping(seconds)
    await say(scene.http, task_id, "Mind the umlauts.", key="a")
    await scene.killed()
    await say(scene.http, task_id, "Mind the umlauts.", key="a")
    task = await until_ended(scene.http, task_id)

    assert task["status"] == "succeeded", task
    assert added(task["diff"]) == ALL
    assert texts(scene.model.last, "user")[1:] == ["Mind the umlauts."]
    assert (await names_of(scene.http, task_id)).count("message") == 1


@SANDBOX_ONLY
async def test_a_service_killed_while_the_model_hears(
    scene: Scene, fresh: SourceRepository
) -> None:
    model = scene.model
    model.held_from = 2
    task_id = await begun(scene.http, "Run: echo one > a.txt", repo_url=str(fresh.path))
    await model.asked(2)
    await say(scene.http, task_id, "Run: echo late >> late.txt")
    model.gate.set()
    await model.asked(3)
    await scene.killed()
    task = await until_ended(scene.http, task_id)

    assert task["status"] == "succeeded", task
    assert added(task["diff"]) == ["one", "late"]
    assert (await names_of(scene.http, task_id)).count("message") == 1
    check_legal(model.last)


@SANDBOX_ONLY
async def test_what_a_cancelled_task_did_not_hear_its_continuation_does(
    scene: Scene, fresh: SourceRepository
) -> None:
    http, seconds = scene.http, short_sleep()
    task_id = await begun(http, f"Steps: {seconds}", repo_url=str(fresh.path))
    await until_sleeping(seconds)
    await say(http, task_id, "Mind the umlauts.")
    await http.post(f"/tasks/{task_id}/cancel")
    task = await until_ended(http, task_id)
    assert task["status"] == "cancelled"
    assert any("before the model heard" in notice for notice in task["notices"])
    more = await until_ended(http, (await say(http, task_id, "Steps: 0"))["task_id"])

    assert more["status"] == "succeeded", more
    assert added(more["diff"])[:2] == ["one", "two"]
    first = next(each for each in scene.model.requests if len(texts(each["messages"], "user")) > 1)
    check_legal(first["messages"])
    assert texts(first["messages"], "user")[1:] == ["Mind the umlauts.", "Steps: 0"]
    assert "ended before this call had a result" in texts(first["messages"], "tool")[-1]


@SANDBOX_ONLY
async def test_a_cancelled_model_call_is_not_waited_for(
    scene: Scene, fresh: SourceRepository
) -> None:
    scene.model.held_from = 2
    task_id = await begun(scene.http, "Run: echo one > a.txt", repo_url=str(fresh.path))
    await scene.model.asked(2)
    await scene.http.post(f"/tasks/{task_id}/cancel")
    task = await until_ended(scene.http, task_id)

    # The model never answered.
    assert not scene.model.gate.is_set()
    assert (task["status"], task["changed_files"]) == ("cancelled", ["a.txt"])


async def test_a_task_is_forked_from_its_steps(scene: Scene, fresh: SourceRepository) -> None:
    http = scene.http
    parent = await succeed(http, "Steps: 0", repo_url=str(fresh.path))
    assert parent["steps"] == LAST
    expected = {0: ALL, 2: ALL, 3: ALL, 4: ALL, 6: ["one", "two", "three"]}
    for step, lines in expected.items():
        task_id = (await fork(http, parent["task_id"], step))["task_id"]
        task = await until_ended(http, task_id)
        assert task["status"] == "succeeded", task
        assert task["forked_from"] == {"task_id": parent["task_id"], "step": step}
        assert added(task["diff"]) == lines
        assert task["query"] == ""
        check_legal(scene.model.last)
        assert texts(scene.model.last, "user") == ["Steps: 0"]
    # With another query, from the end; the parent is as it was.
    other = await fork(http, parent["task_id"], LAST, query="Run: echo five >> steps.txt",
                       budget={"max_steps": 5})  # fmt: skip
    task = await until_ended(http, other["task_id"])
    assert added(task["diff"]) == [*ALL, "five"]
    assert texts(scene.model.last, "user") == ["Steps: 0", "Run: echo five >> steps.txt"]
    assert (await http.get(f"/tasks/{parent['task_id']}")).json() == parent
    # Nothing to do: the model has answered.
    response = await http.post(f"/tasks/{parent['task_id']}/fork", json={"step": LAST})
    await refused(response, 422, "invalid_request")


@SANDBOX_ONLY
async def test_another_model_is_asked_where_a_request_names_it(
    scene: Scene, fresh: SourceRepository
) -> None:
    http, url = scene.http, str(fresh.path)

    def asked() -> set[str]:
        found = {request["model"] for request in scene.model.requests}
        scene.model.requests.clear()
        return found

    parent = await succeed(http, "Run: echo one >> a.txt", repo_url=url)
    usual = (await http.get("/health")).json()["model"]
    assert usual["further"] == [OTHER_MODEL, "third"]
    assert {parent["model"]} == asked() == {usual["name"]}
    forked = await fork(http, parent["task_id"], 2, model=OTHER_MODEL)
    assert forked["model"] == OTHER_MODEL
    assert (await until_ended(http, forked["task_id"]))["status"] == "succeeded"
    assert asked() == {OTHER_MODEL}
    # What comes of it keeps to that model, until another one is asked for.
    again = await say(http, forked["task_id"], "Run: echo two >> a.txt")
    assert (await until_ended(http, again["task_id"]))["model"] == OTHER_MODEL
    assert asked() == {OTHER_MODEL}
    third = await succeed(http, "Run: true", continue_from=again["task_id"], model="third")
    assert {third["model"]} == asked() == {"third"}
    await scene.killed()
    assert (await scene.http.get(f"/tasks/{third['task_id']}")).json() == third

    for body in ({"query": "Run: true", "model": "fourth"}, {"query": "x", "model": ""}):
        await refused(await scene.http.post("/orchestrate", json=body), 422, "invalid_request")
    path = f"/tasks/{parent['task_id']}/fork"
    response = await scene.http.post(path, json={"step": 2, "model": "fourth"})
    assert OTHER_MODEL in (await refused(response, 422, "invalid_request"))["detail"]
    assert asked() == set()


async def test_a_running_task_is_forked_and_compared(scene: Scene, fresh: SourceRepository) -> None:
    http, seconds = scene.http, short_sleep()
    task_id = await begun(http, f"Steps: {seconds}", repo_url=str(fresh.path))
    await until_sleeping(seconds)
    response = await http.post(f"/tasks/{task_id}/fork", json={"step": 4})
    assert (await refused(response, 422, "unknown_step"))["last_step"] == 3
    assert (await http.get(f"/tasks/{task_id}")).json()["steps"] == 3
    response = await http.post("/orchestrate", json={"query": "x", "continue_from": task_id})
    await refused(response, 409, "task_running")
    assert added((await diff(http, task_id))["diff"]) == ["one"]
    forked = await until_ended(http, (await fork(http, task_id, 2, query="Run: true"))["task_id"])
    assert added(forked["diff"])[:1] == ["one"]
    assert (await until_ended(http, task_id))["diff"].count("+two") == 1


@pytest.mark.parametrize("delay", [0.01, 0.1, 0.3])
@SANDBOX_ONLY
async def test_a_service_killed_while_it_forks(
    scene: Scene, fresh: SourceRepository, delay: float
) -> None:
    parent = await succeed(scene.http, "Steps: 0", repo_url=str(fresh.path))
    posting = asyncio.create_task(fork(scene.http, parent["task_id"], 4, key="mine"))
    await asyncio.sleep(delay)
    scene.service.process.kill()
    await asyncio.gather(posting, return_exceptions=True)
    await scene.killed()
    forked = await fork(scene.http, parent["task_id"], 4, key="mine")
    task = await until_ended(scene.http, forked["task_id"])

    assert task["status"] == "succeeded", task
    assert added(task["diff"]) == ALL
    assert len((await scene.http.get("/tasks")).json()) == 2
    assert (await names_of(scene.http, task["task_id"])).count("accepted") == 1


@SANDBOX_ONLY
async def test_requests_with_a_key_take_effect_once(scene: Scene, fresh: SourceRepository) -> None:
    http, headers = scene.http, {"Idempotency-Key": "k"}
    body = {"query": "Run: echo one >> a.txt", "repo_url": str(fresh.path)}
    first, same = [(await http.post("/orchestrate", json=body, headers=headers)).json()
                   for _ in range(2)]  # fmt: skip
    assert first == same
    response = await http.post("/orchestrate", json={**body, "query": "x"}, headers=headers)
    await refused(response, 409, "key_reused")
    both = await asyncio.gather(*(say(http, first["task_id"], "Run: true", "m") for _ in range(2)))
    assert both[0]["task_id"] == both[1]["task_id"]
    await until_ended(http, both[0]["task_id"])
    assert len((await http.get("/tasks")).json()) == 2


@SANDBOX_ONLY
async def test_only_one_of_two_continuations_at_once(scene: Scene, fresh: SourceRepository) -> None:
    http = scene.http
    first = await succeed(http, "Run: true", repo_url=str(fresh.path))
    responses = await asyncio.gather(
        *(http.post(f"/tasks/{first['task_id']}/messages", json={"text": "Run: true"})
          for _ in range(4))
    )  # fmt: skip
    assert sorted(each.status_code for each in responses) == [202, 409, 409, 409]
    [accepted] = [each.json()["task_id"] for each in responses if each.status_code == 202]
    assert {each.json().get("continued_by", accepted) or accepted for each in responses} == {
        accepted
    }
    await until_ended(http, accepted)


async def test_any_two_steps_are_compared(scene: Scene, fresh: SourceRepository) -> None:
    http = scene.http
    task = await succeed(http, "Steps: 0", repo_url=str(fresh.path))
    task_id, container = task["task_id"], task["workspace"]["container"]

    assert (await diff(http, task_id))["diff"] == task["diff"]
    assert added((await diff(http, task_id, from_=2, to=5))["diff"]) == ["two"]
    assert (await diff(http, task_id, from_=3, to=3))["changed_files"] == []
    # A container that sleeps is woken.
    await http.post(f"/containers/{container}/stop")
    told = await diff(http, task_id, from_=4, to=LAST)
    assert added(told["diff"]) == ["three", "four"]
    assert told["changed_files"] == ["steps.txt"]
    # One that is gone has its trees in object storage.
    await http.delete(f"/containers/{container}")
    assert (await diff(http, task_id, from_=4, to=LAST)) == told
    more = await until_ended(http, (await say(http, task_id, "Run: cat steps.txt"))["task_id"])
    assert more["diff"] == task["diff"]


async def test_what_checkpoints_cannot_keep_is_told_and_not_deleted(
    scene: Scene, fresh: SourceRepository
) -> None:
    http, url = scene.http, str(fresh.path)
    command = "Run: truncate -s 33M README.md huge; echo new > new.txt"
    task = await succeed(http, command, repo_url=url)
    task_id, container = task["task_id"], task["workspace"]["container"]
    assert task["changed_files"] == ["new.txt"]
    assert (await diff(http, task_id))["left_out"] == ["README.md", "huge"]

    def check(made: Json) -> None:
        assert made["status"] == "succeeded", made
        assert made["changed_files"] == ["copy.txt", "new.txt"]
        (told,) = [each for each in made["notices"] if "checkpoints" in each]
        assert "README.md: as at the start" in told
        assert "huge: missing" in told

    forked = await fork(http, task_id, task["steps"], query="Run: cp README.md copy.txt")
    check(await until_ended(http, forked["task_id"]))
    await http.delete(f"/containers/{container}")
    check(
        await until_ended(http, (await say(http, task_id, "Run: cp README.md copy.txt"))["task_id"])
    )


async def test_without_container_and_storage_a_tree_is_gone(
    scene: Scene, fresh: SourceRepository
) -> None:
    http = scene.http
    task = await succeed(http, "Run: echo one > a.txt", repo_url=str(fresh.path))
    workspace = task["workspace"]
    await http.delete(f"/containers/{workspace['container']}")
    shutil.rmtree(scene.service.data_dir / f"objects/objects/workspaces+/{workspace['id']}+")
    await refused(await http.get(f"/tasks/{task['task_id']}/diff"), 410, "tree_gone")
    more = await until_ended(http, (await say(http, task["task_id"], "Run: true"))["task_id"])
    assert more["error"]["code"] == "tree_gone"
    assert (await http.get(f"/tasks/{task['task_id']}")).json()["diff"] == task["diff"]


@SANDBOX_ONLY
async def test_without_container_and_with_damaged_storage_the_damage_is_told(
    scene: Scene, fresh: SourceRepository
) -> None:
    http = scene.http
    task = await succeed(http, "Run: echo one > a.txt", repo_url=str(fresh.path))
    workspace = task["workspace"]
    await http.delete(f"/containers/{workspace['container']}")
    kept = scene.service.data_dir / f"objects/objects/workspaces+/{workspace['id']}+"
    [bundle] = kept.rglob("*.bundle=")
    bundle.write_bytes(b"rubbish")
    # Our own copy is a cache; it is not asked for here.
    for cached in (scene.service.data_dir / "checkpoints").glob(f"*{workspace['id']}*"):
        shutil.rmtree(cached)
    told = await http.get(f"/tasks/{task['task_id']}/diff")
    await refused(told, 503, "checkpoints_unusable")
    assert bundle.name.removesuffix("=") in told.json()["detail"]
    more = await until_ended(http, (await say(http, task["task_id"], "Run: true"))["task_id"])
    assert more["error"]["code"] == "checkpoints_unusable"


@SANDBOX_ONLY
async def test_a_continuation_that_never_had_the_tree_is_no_dead_end(
    scene: Scene, fresh: SourceRepository
) -> None:
    http = scene.http
    first = await succeed(http, "Run: echo one > a.txt", repo_url=str(fresh.path))
    # Runs in no container: it is cancelled while another task has the only place.
    blockers = [await begun(http, f"Run: sleep {short_sleep()}", repo_url=str(fresh.path))
                for _ in range(4)]  # fmt: skip
    second = (await say(http, first["task_id"], "Run: true"))["task_id"]
    await http.post(f"/tasks/{second}/cancel")
    for each in [*blockers, second]:
        await http.post(f"/tasks/{each}/cancel")
    for each in [*blockers, second]:
        await until_ended(http, each)
    third = await succeed(http, "Run: true", continue_from=second)
    assert third["changed_files"] == ["a.txt"]


@SANDBOX_ONLY
async def test_scratch_tasks_leave_nothing_to_build_on(scene: Scene) -> None:
    http = scene.http
    task_id = (await succeed(http, "Steps: 0"))["task_id"]

    await refused(await http.get(f"/tasks/{task_id}/diff"), 410, "tree_gone")
    path = f"/tasks/{task_id}"
    await refused(await http.post(f"{path}/fork", json={"step": 2}), 410, "tree_gone")
    await refused(await http.post(f"{path}/messages", json={"text": "x"}), 410, "tree_gone")
