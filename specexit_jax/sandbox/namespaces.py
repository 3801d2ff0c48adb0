"""Namespaces: processes, network and a root folder of its own, where the system grants them (Linux 5.12)."""

import ctypes
import os
import struct
from collections.abc import Iterable

from specexit_jax.sandbox import syscalls

_MOUNTS, _UTS, _IPC, _USER, _PROCESSES, _NETWORK = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_ALL = _UTS | _IPC | _PROCESSES | _NETWORK
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXECUTION, _BIND, _RECURSIVE, _PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_ENTRIES = 4096  # files and folders in the run's own folder


def leave() -> None:
    """This process's children have their own processes, network and users. Raises OSError where that is not granted."""
    user, group = os.getuid(), os.getgid()
    try:
        syscalls.unshare(_USER | _ALL)
    except OSError:
        syscalls.unshare(_ALL)  # granted to root alone
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def own_root(readable: Iterable[str], hidden: Iterable[str], devices: Iterable[str], folder: str, size: int) -> None:
    """Makes a root of `readable`, read-only, and of `folder` (bytes at most: `size`; kept in memory), and goes there.

    The folders `hidden` are empty there.

    Raises OSError.
    """
    syscalls.unshare(_MOUNTS)
    syscalls.mount("none", "/", None, _RECURSIVE | _PRIVATE)
    syscalls.mount("tmpfs", folder, "tmpfs", _NO_SETUID | _NO_DEVICES, "mode=755,size=1m")
    bound: list[str] = []
    for path in sorted(filter(os.path.exists, readable), key=os.path.realpath):
        real = os.path.realpath(path)
        if not any(real == other or real.startswith(f"{other}/") for other in bound):
            _bind(real, folder + real)
            _set(folder + real, read_only=True, no_devices=True)
            bound.append(real)
    for path in hidden:
        syscalls.mount(
            "tmpfs", folder + path, "tmpfs", _NO_SETUID | _NO_DEVICES | _NO_EXECUTION | _READ_ONLY, "mode=555,size=4k"
        )
    for path in filter(os.path.islink, readable):  # such as /lib
        if not os.path.lexists(folder + path):
            os.makedirs(os.path.dirname(folder + path), exist_ok=True)
            os.symlink(os.path.realpath(path), folder + path)
    for path in filter(os.path.exists, devices):
        _bind(path, folder + path)
    own = folder + folder
    os.makedirs(own)
    flags = _NO_SETUID | _NO_DEVICES | _NO_EXECUTION
    syscalls.mount("tmpfs", own, "tmpfs", flags, f"mode=700,size={size},nr_inodes={_ENTRIES}")
    _set(folder, read_only=True, recursive=False)
    os.chdir(folder)
    syscalls.call("pivot_root", b".", b".")
    syscalls.detach(".")
    os.chdir(folder)


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "a").close()
    syscalls.mount(source, target, None, _BIND | _RECURSIVE)


def _set(path: str, read_only: bool, no_devices: bool = False, recursive: bool = True) -> None:
    """mount_setattr, which keeps what the mounts forbid already."""
    flags = read_only * 1 | _NO_SETUID | no_devices * _NO_DEVICES
    attributes = ctypes.create_string_buffer(struct.pack("=QQQQ", flags, 0, 0, 0))
    syscalls.call("mount_setattr", -100, os.fsencode(path), recursive * 0x8000, attributes, 32)
