"""One process at a time writes a set of files: an advisory lock that the kernel lets go of however its holder ends.

`fcntl.flock` on a file beside the work: it holds between processes of one machine, and of several where the file system
passes it on (NFS from Linux 2.6.12 with its lock service, Lustre mounted with -o flock); one that refuses locks is refused with
a sentence, one that only keeps them to the machine cannot be noticed. The lock file is never removed: a process that waits on
a removed file and one that makes it anew would both hold it.
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

    again: a block of this process inside one that holds the lock goes in, and leaves it held.
    Raises ValueError with the holder's pid and host where another process, or another block of this one, holds it; OSError
    where the file system has no locks.
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
    """Waits until no other process or thread is at an open file, and has it alone while the block runs: for moments."""
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
