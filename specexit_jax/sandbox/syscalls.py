"""The system calls that Python's library has no function for, through ctypes; their numbers on x86_64 and aarch64."""

import ctypes
import os
import sys

MACHINES = ("x86_64", "aarch64")
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
_NUMBERS = {  # beside those that ctypes reaches through functions of the C library
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "capset": (126, 91),
}
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def machine() -> int:
    """Column of the tables. Raises OSError for another machine than those of MACHINES."""
    name = os.uname().machine
    if sys.platform != "linux" or name not in MACHINES:
        raise OSError(f"the sandbox knows Linux on {' and '.join(MACHINES)}, not {sys.platform} on {name}")
    return MACHINES.index(name)


def call(name: str, *arguments: int | bytes | ctypes.Array | None) -> int:
    """A system call by name. Raises OSError."""
    return _checked(name, _LIBC.syscall(ctypes.c_long(_NUMBERS[name][machine()]), *map(_long, arguments)))


def prctl(option: int, *arguments: int | ctypes.Array) -> int:
    return _checked("prctl", _LIBC.prctl(option, *map(_long, (*arguments, *[0] * (4 - len(arguments))))))


def unshare(flags: int) -> None:
    _checked("unshare", _LIBC.unshare(flags))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    kind_bytes = None if kind is None else kind.encode()
    result = _LIBC.mount(os.fsencode(source), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), options.encode())
    _checked(f"mount {target}", result)


def detach(target: str) -> None:
    """Unmounts as soon as nobody uses it."""
    _checked("umount2", _LIBC.umount2(os.fsencode(target), 2))


def _long(value: int | bytes | ctypes.Array | None):
    """Variadic arguments are read as longs."""
    return ctypes.c_long(value) if isinstance(value, int) else value


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
