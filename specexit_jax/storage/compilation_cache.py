"""Compiled programs that are kept between processes, in a folder of the user's cache directory.

JAX keys an entry by the program, the compiler's options and flags, jaxlib, and the accelerator. A program that XLA compiled
for a CPU also depends on the instructions of that CPU, which are in the folder's name, and on the number of threads, which is
in the entry's: a command may set it (NPROC) after the folder has been chosen.

JAX writes an entry in place and never replaces it, so that a process that dies in the middle, or a disk that is full, leaves
half a program for good. Here an entry is written beside its place and moved there whole, with a checksum.
"""

import contextlib
import hashlib
import os
import platform
import tempfile
import zlib
from pathlib import Path

import jax
import jaxlib

from specexit_jax.notes import note

SWITCH = "SPECEXIT_COMPILATION_CACHE"  # "off", or another folder
_OFF, _ON = ("off", "0", "no", "false"), ("", "on", "1", "yes", "true")
THEIRS = "JAX_COMPILATION_CACHE_DIR"  # JAX's own setting, which is left as it is
LARGEST = 4 * 2**30  # bytes of a folder, beyond which the entries that were used least recently go
_WORTH = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_SUM = 4  # bytes of a checksum


def keep_programs() -> Path | None:
    """From now on this process keeps its compiled programs, and reads those that were kept before. Returns their folder.

    None, and nothing is changed, where SPECEXIT_COMPILATION_CACHE is "off" and where JAX has a folder of its own
    (JAX_COMPILATION_CACHE_DIR). The folder is told when it is made. One that cannot be made or written to is told
    of, and the process works on without.
    """
    asked = os.environ.get(SWITCH, "")
    if asked.lower() in _OFF or THEIRS in os.environ:
        return None
    if jax.config.jax_compilation_cache_dir:
        return None
    folder = (user_cache() / "specexit_jax" if asked.lower() in _ON else Path(asked).expanduser()) / _machine()
    try:
        if not folder.is_dir():
            # Only for its owner: whoever can write here can have this process run a program.
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            note(f"compiled programs are kept in {folder} (with {SWITCH}=off they are not).")
        _shrink(folder)
    except OSError as error:
        note(f"compiled programs are not kept: {folder} cannot be used ({error.strerror or error}).")
        return None
    _write_whole(folder)
    if _WORTH not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def user_cache() -> Path:
    """The user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _machine() -> str:
    """A name for what a program may depend on and JAX does not key."""
    features = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += next((line for line in lines if line.startswith(("flags", "Features"))), "")
        features += next((line for line in lines if line.startswith("model name")), "")
    digest = hashlib.sha256(f"{features} {os.environ.get('XLA_FLAGS', '')}".encode()).hexdigest()[:12]
    return f"jax-{jax.__version__}-{jaxlib.__version__}-{platform.machine()}-{digest}"


def _shrink(folder: Path) -> None:
    """Removes the entries that were used least recently, as far as the folder is too large."""
    entries = [(entry.stat(), entry.path) for entry in os.scandir(folder) if entry.is_file()]
    total = sum(stat.st_size for stat, _ in entries)
    for stat, path in sorted(entries, key=lambda entry: max(entry[0].st_atime, entry[0].st_mtime)):
        if total <= LARGEST:
            break
        Path(path).unlink(missing_ok=True)
        total -= stat.st_size


class Entries:
    """The entries of a folder, as JAX's cache asks for them: read and written whole, or not at all."""

    def __init__(self, folder: str):
        self._path = Path(folder)
        self._writes = True

    def get(self, key: str) -> bytes | None:
        path = self._file(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        value, told = content[:-_SUM], content[-_SUM:]
        if zlib.crc32(value).to_bytes(_SUM, "little") == told:
            return value
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def put(self, key: str, value: bytes) -> None:
        if not self._writes:
            return
        half = None
        try:
            handle, half = tempfile.mkstemp(prefix=".half-", dir=self._path)
            with os.fdopen(handle, "wb") as file:
                file.write(value + zlib.crc32(value).to_bytes(_SUM, "little"))
            os.replace(half, self._file(key))
        except OSError as error:
            self._writes = False
            note(
                f"compiled programs are no longer kept: {self._path} cannot be written to ({error.strerror or error})."
            )
            if half is not None:
                with contextlib.suppress(OSError):
                    os.unlink(half)

    def _file(self, key: str) -> Path:
        return self._path / f"{key}-{os.environ.get('NPROC') or os.cpu_count()}"


def _write_whole(folder: Path) -> None:
    """Has JAX keep the entries of this folder by `Entries`. A JAX without this place keeps them in its own way."""
    from jax._src import compilation_cache

    own = getattr(compilation_cache, "get_file_cache", None)
    if own is not None:
        compilation_cache.get_file_cache = lambda path: (Entries(path), path) if path == str(folder) else own(path)
