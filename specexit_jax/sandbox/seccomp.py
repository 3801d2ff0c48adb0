"""A seccomp filter in classic BPF: system calls are allowed by number, a few by their arguments, the rest fail with EPERM.

clone3, whose flags a filter cannot see, and whatever else is newer than Linux 5.0 fails with ENOSYS: the C library then takes
the older call.
"""

import ctypes
import errno
import os
import struct

from specexit_jax.sandbox import allowed_calls, syscalls

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_FIRST_NEW = 424  # numbers are the same on all machines from here on
_NEW_NAMESPACES = 0x7E020000  # mount, cgroup, uts, ipc, user, pid, net

_CLONE, _FCNTL, _IOCTL, _PRCTL, _PRLIMIT, _PAIR = (56, 220), (72, 25), (16, 29), (157, 167), (302, 261), (53, 199)
_KILLS = ((62, 129), (200, 130), (234, 131))  # kill, tkill, tgkill
# dup, flags, locks, pipe size: no owner of signals (F_SETOWN, F_SETSIG), no leases
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
_IOCTLS = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # is it a terminal, its size, bytes to read, blocking, close on exec
_PRCTLS = (
    2,
    3,
    15,
    16,
    23,
    39,
    0x53564D41,
)  # names and questions: it stays dumpable, or the supervisor could not look at it


def _instruction(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)


def _returns(value: int) -> bytes:
    return _instruction(_RETURN, value)


_DENY = _returns(_ERRNO | errno.EPERM)


def _argument(number: int) -> bytes:
    """Loads the low half, all that the kernel reads of an int."""
    return _instruction(_LOAD, _ARGUMENTS + 8 * number)


def _for(number: int, body: bytes) -> bytes:
    """`body`, which returns, where the system call is this one."""
    return _instruction(_EQUAL, number, 0, len(body) // 8) + body


def _one_of(values: tuple[int, ...]) -> bytes:
    return b"".join(_for(value, _returns(_ALLOW)) for value in values) + _DENY


def program(machine: int, arch: int, signals: bool) -> bytes:
    """The filter's instructions. signals: whether others are out of reach anyway, so that any process may be signalled."""
    special = {
        _CLONE: _argument(0) + _instruction(_ANY_BIT, _NEW_NAMESPACES, 0, 1) + _DENY + _returns(_ALLOW),
        _FCNTL: _argument(1) + _one_of(_FCNTLS),
        _IOCTL: _argument(1) + _one_of(_IOCTLS),
        _PRCTL: _argument(0) + _one_of(_PRCTLS),
        _PRLIMIT: _argument(0) + _one_of((0,)),  # its own limits: those of the user's other processes it could lower
        # a stream pair of Unix sockets: one of datagrams could be connected to sockets of others
        _PAIR: _argument(0) + _instruction(_EQUAL, 1, 1, 0) + _DENY + _argument(1) + _instruction(_AND, 0xF) + _one_of((1,)),
    }  # fmt: skip
    for kill in _KILLS:
        # else its own group alone, or nothing
        special[kill] = _returns(_ALLOW) if signals else _argument(0) + _one_of((0,) if kill == _KILLS[0] else ())
    parts = [
        _instruction(_LOAD, _ARCH) + _instruction(_EQUAL, arch, 1, 0) + _returns(_KILL),
        _instruction(_LOAD, _NUMBER),
        *(_for(numbers[machine], body) for numbers, body in special.items()),
        *(_for(number, _returns(_ALLOW)) for number in allowed_calls.numbers(machine)),
        _instruction(_AT_LEAST, _FIRST_NEW, 0, 1) + _returns(_ERRNO | errno.ENOSYS),
        _DENY,
    ]
    return b"".join(parts)


def restrict(signals: bool) -> None:
    """Filters this process and all that it starts, for ever. Needs no_new_privs. Raises OSError."""
    code = program(syscalls.machine(), syscalls.AUDIT_ARCH[os.uname().machine], signals)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many instructions, padding, where they are
    header = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer)))
    syscalls.prctl(syscalls.PR_SET_SECCOMP, 2, header)
