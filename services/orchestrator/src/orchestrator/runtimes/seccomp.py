"""The system calls that programs in a sandbox may not make, as a filter for bubblewrap."""

import errno
import struct
from collections.abc import Sequence

# Calls that only administer a machine or have often been a way into its kernel, by their numbers
# on x86_64 and aarch64.
REFUSED: dict[str, tuple[int, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
SOCKET = (41, 198)
FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK; AF_VSOCK and others pass by the network namespace."""

CLONE = (56, 220)
CLONE3 = (435, 435)
NEW_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET
X32_BIT = 0x40000000

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data

_LOAD = 0x20
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_ANY_BIT = 0x45
_RETURN = 0x06
_ALLOW = 0x7FFF0000
_FAIL = 0x00050000


def filter_program(machine: str) -> bytes | None:
    """The filter as an array of `struct sock_filter`, or None for machines we have no numbers of.

    A refused call fails with EPERM, a socket of a family that is not allowed with EAFNOSUPPORT.
    `clone3`, whose flags a filter cannot see, fails with ENOSYS; C libraries then use `clone`.

    Args:
        machine: Name of the processor architecture, as `uname -m` prints it.
    """
    if machine not in _AUDIT_ARCHITECTURES:
        return None
    column = list(_AUDIT_ARCHITECTURES).index(machine)
    numbers = [row[column] for row in REFUSED.values()]
    refused = [number for number in numbers if number is not None]
    return b"".join(
        (
            _by_number(_AUDIT_ARCHITECTURES[machine], refused, CLONE[column], CLONE3[column]),
            _by_family(SOCKET[column]),
        )
    )


def _by_number(architecture: int, refused: Sequence[int], clone: int, clone3: int) -> bytes:
    refuse = _instruction(_RETURN, _FAIL | errno.EPERM)
    parts = [
        _instruction(_LOAD, _ARCHITECTURE),
        # Programs of another architecture would use other numbers.
        _instruction(_JUMP_IF_EQUAL, architecture, if_true=1),
        refuse,
        _instruction(_LOAD, _NUMBER),
        _instruction(_JUMP_IF_ANY_BIT, X32_BIT, if_false=1),
        refuse,
        _instruction(_JUMP_IF_EQUAL, clone3, if_false=1),
        _instruction(_RETURN, _FAIL | errno.ENOSYS),
        _instruction(_JUMP_IF_EQUAL, clone, if_false=4),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_JUMP_IF_ANY_BIT, NEW_NAMESPACE_FLAGS, if_false=1),
        refuse,
        _instruction(_RETURN, _ALLOW),
    ]
    for number in refused:
        parts += [_instruction(_JUMP_IF_EQUAL, number, if_false=1), refuse]
    return b"".join(parts)


def _by_family(socket: int) -> bytes:
    """The end of the filter: all calls left are allowed, but sockets of these families alone."""
    parts = [
        _instruction(_JUMP_IF_EQUAL, socket, if_true=1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _FIRST_ARGUMENT),
    ]
    for family in FAMILIES:
        parts += [
            _instruction(_JUMP_IF_EQUAL, family, if_false=1),
            _instruction(_RETURN, _ALLOW),
        ]
    return b"".join([*parts, _instruction(_RETURN, _FAIL | errno.EAFNOSUPPORT)])


def _instruction(code: int, operand: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
