"""Landlock: a process gives up every file but those beneath named paths (Linux 5.13; more of it with later versions)."""

import ctypes
import os
import struct
from collections.abc import Iterable

from specexit_jax.sandbox import syscalls

_EXECUTE, _WRITE, _READ, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE, _MAKE_FIFO, _MAKE_LINK = (1 << bit for bit in (4, 5, 7, 8, 10, 12))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # rights on files that a version of the interface knows
_LOOK = _EXECUTE | _READ | _READ_DIR
_OWN = (
    _READ | _WRITE | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_FILE | _MAKE_FIFO | _MAKE_LINK
    | _REFER | _TRUNCATE
)  # fmt: skip
_OF_FILES = _EXECUTE | _READ | _WRITE | _TRUNCATE
_SIGNALS = 6  # from this version on, signals and abstract sockets stay inside


def version() -> int:
    """Of the kernel's interface. Raises OSError where it has none, or it is switched off."""
    return syscalls.call("landlock_create_ruleset", None, 0, 1)


def confines_signals() -> bool:
    return version() >= _SIGNALS


def restrict(readable: Iterable[str], hidden: Iterable[str], devices: Iterable[str], own: str) -> None:
    """Restricts this process and its children permanently: they may read and execute `readable`, use `devices`, and do
    anything in the folder `own`.

    Paths that do not exist are passed over; the folders `hidden`, which lie in those of `readable`, can be listed alone. In
    `own` nothing can be executed. Needs no_new_privs. Raises OSError.
    """
    known = version()
    handled = (1 << _BITS[min(known, max(_BITS))]) - 1
    network = 0b11 if known >= 4 else 0  # TCP: bind, connect
    scopes = 0b11 if known >= _SIGNALS else 0  # abstract Unix sockets, signals
    size = 8 if known < 4 else 16 if known < _SIGNALS else 24
    attributes = ctypes.create_string_buffer(struct.pack("=QQQ", handled, network, scopes))
    rules = syscalls.call("landlock_create_ruleset", attributes, size, 0)
    try:
        for path in readable:
            _allow_all_but(rules, path, hidden)
        for path in devices:
            _allow(rules, path, _READ | _WRITE)
        _allow(rules, own, _OWN & handled)
        syscalls.call("landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)


def _allow_all_but(rules: int, path: str, hidden: Iterable[str]) -> None:
    within = [other for other in hidden if other == path or other.startswith(f"{path}/")]
    if not within:
        _allow(rules, path, _LOOK)
    elif path not in within:
        _allow(rules, path, _READ_DIR)
        for name in os.listdir(path):
            _allow_all_but(rules, os.path.join(path, name), within)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        syscalls.call("landlock_add_rule", rules, 1, ctypes.create_string_buffer(struct.pack("=Qi", rights, handle)), 0)
    finally:
        os.close(handle)
