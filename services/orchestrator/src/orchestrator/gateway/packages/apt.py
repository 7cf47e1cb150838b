"""apt: its sources."""

from orchestrator.gateway.packages.found import Found
from orchestrator.gateway.packages.machine import Machine

_FIELDS = "$(TARGET_OF)|$(SIGNED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_SOURCES = "BERTH_APT_SOURCES"
"""The variable by which a worker learns them whose container's system has none."""


async def find_apt(found: Found, machine: Machine) -> None:
    """Ask apt."""
    listed = await machine.run(("apt-get", "indextargets", "--format", _FIELDS)) or ""
    sources: dict[str, None] = {}
    for line in dict.fromkeys(listed.splitlines()):
        kind, key, url, *where = line.split("|")
        usable = found.add(url, "apt")
        if usable is not None and kind == "deb":
            signed = f"[signed-by={key}] " if key.startswith("/") else ""
            # A field that a source does not have is printed as it was asked for.
            known = " ".join(field for field in where if not field.startswith("$("))
            sources[f"deb {signed}{usable} {known}\n"] = None
    if not listed:
        found.missing("apt")
    if sources:
        found.variables[_SOURCES] = "".join(sources)
