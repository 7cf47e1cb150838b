"""What the worker and its tools may not ask of the kernel, whatever the runtime allows."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.seccomp import ALLOW, ARCHITECTURES, FAIL, decided

from agent.system_calls import FAMILIES, IO_URING, filter_program

SOCKET = {"x86_64": 41, "aarch64": 198}
VSOCK = 40
MACHINES = st.sampled_from(sorted(ARCHITECTURES))


def verdict(machine: str, number: int, argument: int = 0) -> int:
    program = filter_program(machine)
    assert program is not None
    return decided(program, number, argument, ARCHITECTURES[machine])


@given(MACHINES, st.integers(0, 2**32 - 1))
def test_sockets_stay_in_the_network_namespace(machine: str, family: int) -> None:
    expected = ALLOW if family in FAMILIES else FAIL | errno.EAFNOSUPPORT
    assert verdict(machine, SOCKET[machine], family) == expected


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_vsock_is_refused(machine: str) -> None:
    assert verdict(machine, SOCKET[machine], VSOCK) == FAIL | errno.EAFNOSUPPORT


@given(MACHINES, st.integers(0, 1_000))
def test_all_else_but_io_uring_is_allowed(machine: str, number: int) -> None:
    expected = FAIL | errno.ENOSYS if number in IO_URING else ALLOW
    assert verdict(machine, number, FAMILIES[0]) == expected


def test_calls_by_other_conventions_fail() -> None:
    program = filter_program("x86_64")
    assert program is not None
    assert decided(program, 359, VSOCK, 0x40000003) == FAIL | errno.EPERM
    assert verdict("x86_64", 41 | 0x40000000, FAMILIES[0]) == FAIL | errno.EPERM


def test_other_processors_have_no_filter() -> None:
    assert filter_program("riscv64") is None
