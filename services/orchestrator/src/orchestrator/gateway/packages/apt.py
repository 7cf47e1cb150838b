"""apt: its sources."""

from orchestrator.gateway.packages.found import Found
from orchestrator.gateway.packages.machine import Machine


async def find_apt(found: Found, machine: Machine) -> None:
    """Ask apt."""
    command = ("apt-get", "indextargets", "--format", "$(REPO_URI)")
    listed = (await machine.run(command) or "").split()
    if not listed:
        found.missing("apt")
    for url in dict.fromkeys(listed):
        found.add(url, "apt")
