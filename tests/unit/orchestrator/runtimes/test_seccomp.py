"""The filter for system calls of sandboxes."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.seccomp import ALLOW, ARCHITECTURES, FAIL, decided

from orchestrator.runtimes.seccomp import (
    CLONE,
    CLONE3,
    FAMILIES,
    NEW_NAMESPACE_FLAGS,
    REFUSED,
    SOCKET,
    filter_program,
)

I386 = 0x40000003


def verdict(machine: str, number: int, argument: int = 0, architecture: int | None = None) -> int:
    """What the kernel would decide on a call."""
    program = filter_program(machine)
    assert program is not None
    architecture = ARCHITECTURES[machine] if architecture is None else architecture
    return decided(program, number, argument, architecture)


@pytest.mark.parametrize(("column", "machine"), list(enumerate(ARCHITECTURES)))
def test_every_named_call_fails_with_eperm(column: int, machine: str) -> None:
    for numbers in REFUSED.values():
        if numbers[column] is not None:
            assert verdict(machine, numbers[column] or 0) == FAIL | errno.EPERM


@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(0, 1000))
def test_every_other_call_is_allowed(machine: str, number: int) -> None:
    column = list(ARCHITECTURES).index(machine)
    named = {numbers[column] for numbers in REFUSED.values()} | {CLONE3[column]}
    assert (verdict(machine, number, FAMILIES[0]) == ALLOW) == (number not in named)


@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(0, 2**32 - 1))
def test_sockets_are_of_families_that_stay_in_the_network_namespace(
    machine: str, family: int
) -> None:
    number = SOCKET[list(ARCHITECTURES).index(machine)]
    expected = ALLOW if family in FAMILIES else FAIL | errno.EAFNOSUPPORT
    assert verdict(machine, number, family) == expected


def test_virtual_machines_own_sockets_are_none_of_them() -> None:
    assert verdict("x86_64", SOCKET[0], 40) == FAIL | errno.EAFNOSUPPORT


@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(0, 2**32 - 1))
def test_clone_may_make_threads_and_no_namespaces(machine: str, flags: int) -> None:
    number = CLONE[list(ARCHITECTURES).index(machine)]
    allowed = not flags & NEW_NAMESPACE_FLAGS
    assert (verdict(machine, number, flags) == ALLOW) == allowed


def test_clone3_seems_not_to_exist() -> None:
    assert verdict("x86_64", CLONE3[0], 0) == FAIL | errno.ENOSYS


@given(st.integers(0, 500))
def test_calls_by_other_conventions_fail(number: int) -> None:
    assert verdict("x86_64", number, architecture=I386) == FAIL | errno.EPERM
    assert verdict("x86_64", number | 0x40000000) == FAIL | errno.EPERM


def test_other_machines_have_no_filter() -> None:
    assert filter_program("riscv64") is None
