"""Many tasks queued at once; `python -m tests.drain` does it with more."""

import pytest
from tests.acceptance.conftest import SANDBOX_ONLY
from tests.drain import problems
from tests.support.drain import drain

GROWTH_BYTES = 32 * 2**20


@SANDBOX_ONLY
@pytest.mark.timeout(600)
async def test_a_queue_drains_in_order_and_loses_nothing(runtime: str) -> None:
    found = await drain(runtime, tasks=40, workspaces=8)
    assert problems(found) == []
    assert found.end - found.warm < GROWTH_BYTES
