"""What every `Forge` does, over HTTP, against the stand-ins of `tests.support.forges`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from pydantic import SecretStr
from tests.support.forges import FORGES, FakeForge, serve_app

from orchestrator.domain.repository import parse_repository_url
from orchestrator.errors import BerthError, ForgeFailure, ForgeRefused
from orchestrator.gateway.credentials import Credentials
from orchestrator.gateway.credentials_file import Entry, ForgeKind
from orchestrator.gateway.forges.choice import HttpForges
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.gateway.github_app import InstallationTokens
from orchestrator.ports import Forge, Proposal

TOKEN = "canary-forge-token"
PROPOSAL = Proposal("berth/t1", "main", "Add a file", "Because.\n\nÜ", draft=False)


@dataclass
class Bench:
    """A forge, the stand-in it talks to, and forges for other tokens and repositories."""

    forge: Forge
    fake: FakeForge
    kind: str
    url: str
    http: ForgeHttp

    async def other(self, path: str = "acme/private", token: str = TOKEN) -> Forge:
        entry = Entry(url=self.url, token=SecretStr(token), forge=ForgeKind(self.kind))
        credentials = Credentials([entry], {}, InstallationTokens(self.http))
        url = parse_repository_url(f"{self.url}/{path}")
        return await HttpForges(self.http, credentials).of(url)


@pytest.fixture(params=list(FORGES))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    fake = FORGES[request.param](TOKEN)
    http = ForgeHttp()
    async with serve_app(fake.app) as url:
        found = Bench(None, fake, request.param, url, http)  # type: ignore[arg-type]  # set next
        found.forge = await found.other()
        yield found
        await http.close()


async def test_a_pull_request_is_found_once_it_is_opened(bench: Bench) -> None:
    assert await bench.forge.find("berth/t1", "main") is None
    opened = await bench.forge.open(PROPOSAL)
    assert opened.url.endswith(f"/{opened.number}")
    assert await bench.forge.find("berth/t1", "main") == opened
    assert await bench.forge.find("berth/t1", "other") is None
    assert await bench.forge.find("berth/t2", "main") is None
    (kept,) = bench.fake.pulls
    assert (kept["title"], kept["body"]) == (PROPOSAL.title, PROPOSAL.body)
    assert (kept["head"], kept["base"]) == (PROPOSAL.head, PROPOSAL.base)
    assert not kept.get("draft")


async def test_a_draft_is_one(bench: Bench) -> None:
    await bench.forge.open(Proposal("b", "main", "Title", "", draft=True))
    (kept,) = bench.fake.pulls
    assert kept["draft"] is True
    assert kept["title"] == "Title"


async def test_a_second_one_is_refused_and_told_why(bench: Bench) -> None:
    await bench.forge.open(PROPOSAL)
    with pytest.raises(ForgeRefused, match="already exists"):
        await bench.forge.open(PROPOSAL)
    assert len(bench.fake.pulls) == 1


async def test_the_text_is_replaced(bench: Bench) -> None:
    opened = await bench.forge.open(PROPOSAL)
    await bench.forge.describe(opened, "Another text.")
    (kept,) = bench.fake.pulls
    assert (kept["title"], kept["body"]) == (PROPOSAL.title, "Another text.")


async def test_a_wrong_token_is_named_by_its_host_alone(bench: Bench) -> None:
    bench.fake.echoes = True
    forge = await bench.other(token="canary-wrong")
    with pytest.raises(ForgeRefused, match=r"127\.0\.0\.1 does not take Berth's token") as caught:
        await forge.find("b", "main")
    _holds_no_secret(caught.value)


async def test_no_right_to_a_repository(bench: Bench) -> None:
    bench.fake.echoes = True
    forge = await bench.other(path="acme/other")
    with pytest.raises(ForgeRefused, match="right") as caught:
        await forge.find("b", "main")
    _holds_no_secret(caught.value)


async def test_a_broken_api_is_a_failure(bench: Bench) -> None:
    bench.fake.fails = 1
    with pytest.raises(ForgeFailure, match="status 500"):
        await bench.forge.open(PROPOSAL)


async def test_redirects_are_not_followed(bench: Bench) -> None:
    other = FORGES[bench.kind](TOKEN)
    async with serve_app(other.app) as url:
        bench.fake.redirect = url
        with pytest.raises(ForgeFailure, match="api_url"):
            await bench.forge.open(PROPOSAL)
    assert other.requests == []


async def test_nobody_answers() -> None:
    entry = Entry(url="http://127.0.0.1:1", token=SecretStr(TOKEN), forge=ForgeKind.GITHUB)
    http = ForgeHttp()
    credentials = Credentials([entry], {}, InstallationTokens(http))
    forge = await HttpForges(http, credentials).of(parse_repository_url("http://127.0.0.1:1/a/b"))
    with pytest.raises(ForgeFailure, match="does not answer"):
        await forge.find("b", "main")
    await http.close()


def _holds_no_secret(error: BerthError) -> None:
    assert "canary" not in f"{error!r} {error.detail} {error.facts}"
