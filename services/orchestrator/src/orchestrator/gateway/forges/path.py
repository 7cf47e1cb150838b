"""Where a repository lies on a forge."""

from urllib.parse import quote

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.errors import ForgeUnknown

_PARTS = 2


def owner_and_name(url: RepositoryUrl) -> tuple[str, str]:
    """The last two parts of the path, as they are written in an address.

    Raises:
        ForgeUnknown: There are fewer.
    """
    parts = url.path.strip("/").split("/")[-_PARTS:]
    if len(parts) < _PARTS:
        raise ForgeUnknown(
            f"{url} is not the address of a repository on a forge, which has an owner and a name: "
            "publish with mode branch.",
            host=url.host,
        )
    return quote(parts[0], safe=""), quote(parts[1], safe="")
