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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file while the block runs; released by the kernel when the process is killed.

    Raises ValueError with the holder's pid and host where another process, or another block of this one, holds it; OSError
    where the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
        yield
