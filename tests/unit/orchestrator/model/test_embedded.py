"""The scripted model as a child process."""

from pathlib import Path

import httpx2
import pytest

from orchestrator.model.embedded import EmbeddedModel


async def test_it_runs_without_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "s3cret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://berth:s3cret@db.test/berth")
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    model = EmbeddedModel()
    url = await model.start()
    try:
        assert model._process is not None
        environment = Path(f"/proc/{model._process.pid}/environ").read_bytes()
        async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
            answer = await http.get(f"{url}/models")
    finally:
        await model.stop()

    assert answer.status_code == 200
    assert b"PATH=" in environment
    assert b"s3cret" not in environment
