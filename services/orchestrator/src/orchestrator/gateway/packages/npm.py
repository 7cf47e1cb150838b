"""npm: its registry."""

from orchestrator.gateway.packages.found import Found
from orchestrator.gateway.packages.machine import Machine


async def find_npm(found: Found, machine: Machine) -> None:
    """Ask npm."""
    url = (await machine.run(("npm", "config", "get", "registry")) or "").strip()
    if not url:
        found.missing("npm")
        return
    registry = found.add(url, "npm")
    if registry is not None:
        found.variables["NPM_CONFIG_REGISTRY"] = registry
