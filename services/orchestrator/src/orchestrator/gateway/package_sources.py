"""Where this machine's own package managers install from, asked of them at run time.

So containers use the indexes and mirrors that the operator has configured for the machine.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from orchestrator.domain.egress import PackageSources
from orchestrator.gateway.packages.apt import find_apt
from orchestrator.gateway.packages.cargo import find_cargo
from orchestrator.gateway.packages.found import Found
from orchestrator.gateway.packages.go import find_go
from orchestrator.gateway.packages.machine import Machine
from orchestrator.gateway.packages.maven import find_maven
from orchestrator.gateway.packages.npm import find_npm
from orchestrator.gateway.packages.pip import find_pip
from orchestrator.settings import EgressPreset

_FINDERS: Mapping[EgressPreset, Callable[[Found, Machine], Awaitable[None]]] = {
    EgressPreset.PIP: find_pip,
    EgressPreset.NPM: find_npm,
    EgressPreset.APT: find_apt,
    EgressPreset.CARGO: find_cargo,
    EgressPreset.GO: find_go,
    EgressPreset.MAVEN: find_maven,
}


async def find_sources(
    presets: Sequence[EgressPreset], machine: Machine | None = None
) -> PackageSources:
    """Ask the clients of these presets where they install from.

    Args:
        presets: Which clients.
        machine: Where they are; this one if None.
    """
    found = Found()
    for preset in dict.fromkeys(presets):
        await _FINDERS[preset](found, machine or Machine())
    return found.sources()
