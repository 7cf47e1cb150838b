"""Write `.env.example` from the settings: `python -m orchestrator.env_example > .env.example`."""

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from orchestrator.settings import Settings

HEADER = """\
# Every setting of Berth, with its default. Copy to .env, or set as environment variables.
# Made by `python -m orchestrator.env_example`; edit orchestrator/settings.py instead.
"""


def env_example() -> str:
    """The file's text."""
    parts = [_entry(name, field) for name, field in Settings.model_fields.items()]
    return HEADER + "".join(parts)


def variable_name(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    alias = field.validation_alias
    prefix = str(Settings.model_config.get("env_prefix", ""))
    return alias if isinstance(alias, str) else (prefix + name).upper()


def _entry(name: str, field: FieldInfo) -> str:
    return f"\n# {field.description}\n# {variable_name(name, field)}={_shown(field.default)}\n"


def _shown(default: object) -> str:
    if default is None or default is PydanticUndefined or default == ():
        return ""
    # Secrets have placeholders as defaults, and are shown as those.
    reveal = getattr(default, "get_secret_value", None)
    return str(reveal() if reveal is not None else default)


if __name__ == "__main__":
    print(env_example(), end="")
