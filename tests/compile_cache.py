"""The compilation cache of a run of the tests, which starts with the programs of earlier runs.

Every run has a folder of its own: a test that kills a process may leave half an entry there. What is kept between runs gets
the new whole entries when the run ends. JAX's keys hold the versions, the devices and the flags of XLA.
"""

import os
import shutil
import tempfile
from pathlib import Path

from jax._src.compilation_cache import decompress_executable

LARGEST = 2 << 30  # bytes that are kept; with more than that, the next run starts anew


def begin(kept: Path | None) -> Path:
    """A new folder for a run, holding the entries of `kept`; on the same disk, which makes them links."""
    if kept is None:
        return Path(tempfile.mkdtemp(prefix="specexit-tests-"))
    kept.mkdir(parents=True, exist_ok=True)
    entries = list(kept.iterdir())
    if sum(entry.stat().st_size for entry in entries) > LARGEST:
        for entry in entries:
            entry.unlink(missing_ok=True)
        entries = []
    folder = Path(tempfile.mkdtemp(prefix=f"{kept.name}-", dir=kept.parent))
    for entry in entries:
        os.link(entry, folder / entry.name)
    return folder


def end(folder: Path, kept: Path | None) -> None:
    """Move the whole new entries to `kept` and remove the folder."""
    for entry in folder.iterdir() if kept is not None else ():
        if not (kept / entry.name).exists() and _whole(entry):
            os.replace(entry, kept / entry.name)
    shutil.rmtree(folder, ignore_errors=True)


def _whole(entry: Path) -> bool:
    try:
        return bool(decompress_executable(entry.read_bytes()))
    except Exception:  # of whichever compression JAX has found
        return False
