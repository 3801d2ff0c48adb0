"""What a group of processes takes in all: tasks, memory, CPU time, and disk; limits of the kernel's hold for each process alone."""

import collections
import os
import stat

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
_ENTRIES = 4096  # files and folders that a run may leave in its folder, as namespaces.py bounds them


# Of the processes `ids`: processes and threads, bytes of memory in use (shared ones counted for each), seconds.
Usage = collections.namedtuple("Usage", "ids tasks memory cpu")


def usage(group: int, apart: int | None = None) -> Usage:
    """Of a process group. apart: a process of ours in it, of which only the time of the children it outlived counts."""
    ids, tasks, memory, ticks = [], 0, 0, 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) != group:
            continue
        ticks += int(fields[13]) + int(fields[14])
        if int(name) == apart:
            continue
        ids.append(int(name))
        tasks += int(fields[17])
        memory += int(fields[21]) * _PAGE
        ticks += int(fields[11]) + int(fields[12])
    return Usage(tuple(ids), tasks, memory, ticks / _TICKS)


def disk(folder: str, ids: tuple[int, ...]) -> float:
    """Bytes of the folder's files, and of those that the processes have removed and still hold open; infinite where there are
    more than 4096, or paths too long to follow."""
    sizes: dict[tuple[int, int], int] = {}
    folders, entries = [folder], 0
    while folders:
        try:
            with os.scandir(folders.pop()) as found_here:
                for entry in found_here:
                    found = entry.stat(follow_symlinks=False)
                    sizes[found.st_dev, found.st_ino] = 512 * found.st_blocks
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    if entries > _ENTRIES:
                        return float("inf")
        except (FileNotFoundError, PermissionError, NotADirectoryError):  # gone by now, or closed: then empty
            continue
        except OSError:
            return float("inf")
    for number in ids:
        try:
            handles = os.listdir(f"/proc/{number}/fd")
        except OSError:
            continue
        for handle in handles:
            try:
                found = os.stat(f"/proc/{number}/fd/{handle}")
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                sizes[found.st_dev, found.st_ino] = 512 * found.st_blocks
    return sum(sizes.values())


def remove(folder: str) -> None:
    """The folder with all that is in it, however deep it lies and whatever its modes say."""
    number = 0
    while deeper := _empty(folder):
        for name in deeper:
            inner = os.path.join(folder, name)
            for moved in _empty(inner):
                os.rename(os.path.join(inner, moved), os.path.join(folder, f".removed-{number}"))
                number += 1
            os.rmdir(inner)
    os.rmdir(folder)


def _empty(folder: str) -> list[str]:
    """Removes the files; the names of the folders in it, made writable."""
    os.chmod(folder, 0o700)
    with os.scandir(folder) as entries:
        folders = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    for name, is_folder in folders.items():
        path = os.path.join(folder, name)
        if is_folder:
            os.chmod(path, 0o700)  # moving a folder writes to it
        else:
            os.unlink(path)
    return [name for name, is_folder in folders.items() if is_folder]
