"""System calls that neither the worker nor what it starts may make, whatever the runtime allows.

Some kinds of sockets pass by the network namespace of a container: with `AF_VSOCK` a program in a
virtual machine speaks to the machine below it. Not every engine's filter refuses them. `io_uring`
makes sockets without the system call that a filter sees, so it goes as well.
"""

import ctypes
import errno
import os
import platform
import struct

FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: what programs need on one machine."""

IO_URING = (425, 426, 427)
"""`io_uring_setup`, `_enter`, `_register`, everywhere the same."""

X32_BIT = 0x40000000
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
FILTER_MODE = 2

# By processor: its number in the kernel's audit, and that of the call `socket`.
_PROCESSORS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_program(machine: str) -> bytes | None:
    """The filter as an array of `struct sock_filter`; None for processors we have no numbers of.

    Args:
        machine: Name of the processor, as `uname -m` prints it.
    """
    if machine not in _PROCESSORS:
        return None
    architecture, socket = _PROCESSORS[machine]
    not_ours = _instruction(_RETURN, _FAIL | errno.EPERM)
    parts = [
        _instruction(_LOAD, _ARCHITECTURE),
        # Programs of another architecture would use other numbers.
        _instruction(_IF_EQUAL, architecture, if_true=1),
        not_ours,
        _instruction(_LOAD, _NUMBER),
        _instruction(_IF_ANY_BIT, X32_BIT, if_false=1),
        not_ours,
    ]
    for number in IO_URING:
        missing = _instruction(_RETURN, _FAIL | errno.ENOSYS)
        parts += [_instruction(_IF_EQUAL, number, if_false=1), missing]
    parts += [
        _instruction(_IF_EQUAL, socket, if_true=1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _FIRST_ARGUMENT),
    ]
    for family in FAMILIES:
        allowed = _instruction(_RETURN, _ALLOW)
        parts += [_instruction(_IF_EQUAL, family, if_false=1), allowed]
    return b"".join([*parts, _instruction(_RETURN, _FAIL | errno.EAFNOSUPPORT)])


def give_up_system_calls() -> None:
    """Put this thread, and all that it starts from now on, under the filter, for good.

    Raises:
        OSError: The kernel has no such filters.
    """
    program = filter_program(platform.machine())
    if program is None:
        return
    # The kernel copies the program, so the buffer need not outlive the call.
    buffer = ctypes.create_string_buffer(program, len(program))
    filters = _Program(len(program) // 8, ctypes.addressof(buffer))
    _prctl(PR_SET_NO_NEW_PRIVS, 1, None)
    _prctl(PR_SET_SECCOMP, FILTER_MODE, ctypes.byref(filters))


def _prctl(option: int, value: int, argument: object) -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(option, ctypes.c_ulong(value), argument, None, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def _instruction(code: int, operand: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
