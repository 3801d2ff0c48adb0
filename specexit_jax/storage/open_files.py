"""Files that are read at random places, by several threads."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path


class OpenFiles:
    """Files by number, each opened at its first read and closed with this object. What another process puts in the place of an
    opened file is not seen."""

    def __init__(self, paths: Sequence[Path]):
        self._paths, self._numbers = paths, {}
        weakref.finalize(self, _close, self._numbers)

    def read(self, file: int, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file; threads do not share a position."""
        if file not in self._numbers:
            number = os.open(self._paths[file], os.O_RDONLY | os.O_CLOEXEC)
            if self._numbers.setdefault(file, number) != number:  # another thread was first
                os.close(number)
        return os.pread(self._numbers[file], end - start, start)


def _close(numbers: dict[int, int]) -> None:
    for number in numbers.values():
        os.close(number)
