"""One process at a time writes a set of files: an advisory lock that the kernel releases however its holder ends.

`fcntl.flock` on a file beside the work. It excludes processes of one machine, and of several machines if the file
system forwards locks (NFS from Linux 2.6.12 with its lock service, Lustre mounted with -o flock). A file system that
refuses locks gives an error. One that keeps locks local to a machine cannot be detected. The lock file is never
removed: otherwise a process that waits on the removed file and one that creates it again would both hold the lock.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_HELD: set[Path] = set()  # by this process


@contextlib.contextmanager
def locked(path: Path, again: bool = False) -> Iterator[None]:
    """Holds the lock of a file while the block runs; released by the kernel when the process is killed.

    again: a nested block of this process may enter, and leaves the lock held (reentrant). Raises ValueError with the
    holder's pid and host where another process, or another block of this one, holds it; OSError where the file system
    has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.resolve()
    if again and name in _HELD:
        yield
        return
    with path.open("a+") as file:  # not inherited by children that exec
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise OSError(
                    f"{path} cannot be locked ({error.strerror}): use a workdir on another file system"
                ) from error
            file.seek(0)
            holder = file.readline().strip() or "another process"
            raise ValueError(
                f"{path} is held by {holder}, which writes the same files: wait for its end, or use another workdir."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        _HELD.add(name)
        try:
            yield
        finally:
            _HELD.discard(name)


@contextlib.contextmanager
def alone_at(file: IO[bytes]) -> Iterator[None]:
    """Holds an open file exclusively while the block runs, after waiting for other processes and threads. For short
    blocks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise OSError(
            f"{file.name} cannot be locked ({error.strerror}): use a workdir on another file system"
        ) from error
    try:
        yield
    finally:
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
