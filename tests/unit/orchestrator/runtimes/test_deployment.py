"""Names on a machine, and fingerprints."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtimes.deployment import Deployment, fingerprint

NAMES = st.from_regex(r"repo-[0-9a-f]{16}", fullmatch=True)
DEPLOYMENTS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)


def test_the_default_deployment_keeps_plain_names() -> None:
    assert Deployment().qualify("repo-0123456789abcdef") == "repo-0123456789abcdef"


@given(NAMES, DEPLOYMENTS, DEPLOYMENTS)
def test_a_name_is_found_again_by_its_own_deployment_alone(name: str, own: str, other: str) -> None:
    qualified = Deployment(own).qualify(name)
    assert Deployment(own).plain(qualified) == name
    assert (Deployment(other).plain(qualified) is None) == (own != other)


def test_a_fingerprint_depends_on_every_fact_and_not_on_their_order() -> None:
    assert fingerprint(image="a", memory=1) == fingerprint(memory=1, image="a")
    prints = {fingerprint(image="a", memory=1), fingerprint(image="b", memory=1)}
    assert len(prints | {fingerprint(image="a", memory=2), fingerprint(image="a")}) == 4
