"""What can be wrong with a checkpoint, each as a message of one sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# TensorStore reports it only in the text of its message, with the operating system's words.
_FULL_WORDS = ("no space left", "quota exceeded", "file too large")


def _first_line(reason: Any) -> str:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return lines[0][:160]


def unreadable(path: Path, reason: Any) -> OSError:
    return OSError(f"checkpoint {path} cannot be read ({_first_line(reason)})")


def unwritable(folder: Path, step: int, good: Sequence[int], reason: BaseException) -> OSError:
    """The message for a checkpoint that cannot be written. good: the steps whose checkpoints are complete."""
    last = f"the last good checkpoint is step {max(good)}" if good else "there is no checkpoint yet"
    if _is_full(reason):
        return OSError(
            f"no space left for checkpoint {folder / str(step)}; {last}: free some space, run the same command"
        )
    return OSError(f"checkpoint {folder / str(step)} cannot be written ({_first_line(reason)}); {last}")


def _is_full(reason: BaseException | None) -> bool:
    while reason is not None:
        if getattr(reason, "errno", None) in _FULL or any(words in str(reason).lower() for words in _FULL_WORDS):
            return True
        reason = reason.__cause__ or reason.__context__
    return False


def check_same(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ValueError with the first difference; both arguments map names to (shape, dtype)."""
    for problem in _differences(saved, wanted):
        raise ValueError(
            f"checkpoint {path} is of another model or optimizer: {problem}; use another workdir or the old config"
        )


def _differences(saved: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in wanted:
            yield f"it holds {name}, which this run lacks"
        elif name not in saved:
            yield f"it lacks {name}"
        elif saved[name] != wanted[name]:
            yield f"{name} is {saved[name][1]}{list(saved[name][0])} there and {wanted[name][1]}{list(wanted[name][0])} here"
