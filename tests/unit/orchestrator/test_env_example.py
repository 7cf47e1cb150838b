from pathlib import Path

from orchestrator.env_example import env_example, variable_name
from orchestrator.settings import Settings

CHECKOUT = Path(__file__).parents[3]


def test_the_committed_file_names_every_setting_as_it_is() -> None:
    committed = (CHECKOUT / ".env.example").read_text()

    assert committed == env_example(), "run: python -m orchestrator.env_example > .env.example"


def test_names_users_know_have_no_prefix_and_ours_have_one() -> None:
    names = {variable_name(name, field) for name, field in Settings.model_fields.items()}

    known = {"DATABASE_URL", "GCS_BUCKET", "GPT_OSS_URL", "LLM_API_KEY", "LLM_MODEL", "LLM_MODELS"}
    assert {*known, "BERTH_DATA_DIR"} <= names
    assert all(name.startswith("BERTH_") for name in names - known)
