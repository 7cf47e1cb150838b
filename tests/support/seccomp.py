"""A small interpreter of filters for system calls."""

import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, FAIL = 0x7FFF0000, 0x00050000


def decided(program: bytes, number: int, argument: int, architecture: int) -> int:
    """What the kernel would decide on a call by this filter."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    data = struct.pack("=IIQQ", number, architecture, 0, argument)
    value, position = 0, 0
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif code == 0x15:
            position += if_true if value == operand else if_false
        elif code == 0x45:
            position += if_true if value & operand else if_false
        else:
            raise AssertionError(f"unknown instruction {code:#x}")
