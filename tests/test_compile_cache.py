"""What was compiled is kept between runs of the tests: whole entries, up to a size."""

import os
import subprocess
import sys

import compile_cache
import jax
import jax.numpy as jnp
from jax._src import compilation_cache as theirs
from jax._src.compilation_cache import compress_executable


def test_a_run_leaves_its_whole_entries_to_the_next(tmp_path):
    kept, program = tmp_path / "kept", compress_executable(b"program" * 100)
    first = compile_cache.begin(kept)
    (first / "a-cache").write_bytes(program)
    (first / "torn-cache").write_bytes(program[:-4])  # of a process that was killed
    compile_cache.end(first, kept)
    second = compile_cache.begin(kept)
    assert [entry.name for entry in second.iterdir()] == ["a-cache"]
    (second / "a-cache").unlink()  # what a run does to its folder stays there
    (second / "b-cache").write_bytes(program)
    compile_cache.end(second, kept)
    assert {entry.name: entry.read_bytes() for entry in kept.iterdir()} == {"a-cache": program, "b-cache": program}
    assert list(tmp_path.iterdir()) == [kept]


def test_too_much_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "LARGEST", 10)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a-cache").write_bytes(b"x" * 11)
    compile_cache.end(compile_cache.begin(kept), kept)
    assert not list(kept.iterdir())


def test_a_run_that_keeps_nothing_leaves_nothing():
    folder = compile_cache.begin(None)
    (folder / "a-cache").write_bytes(b"x")
    compile_cache.end(folder, None)
    assert not folder.exists()


def test_a_program_is_found_in_whichever_folder_a_run_has(tmp_path):
    """JAX may put the folder's path among the compiler's options, and so into the keys."""
    found = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        given = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        code = "import jax; jax.jit(lambda x: x + 1)(1.0)"
        subprocess.run([sys.executable, "-c", code], env=os.environ | given, check=True)
        found.append(sorted(entry.name for entry in folder.glob("jit__lambda*-cache")))
    assert found[0] and found[0] == found[1]


def test_half_an_entry_is_no_error(tmp_path, monkeypatch):
    """JAX writes an entry in place: another worker may read half of it. It says so, and compiles the program itself."""
    monkeypatch.setattr(theirs, "_cache", None)
    monkeypatch.setattr(theirs, "_cache_initialized", False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        for _ in range(2):
            assert jax.jit(lambda x: x + jnp.float32(7.25))(jnp.float32(1)) == 8.25
            for entry in tmp_path.glob("jit__lambda*-cache"):
                entry.write_bytes(entry.read_bytes()[:-9])
            jax.clear_caches()
        assert list(tmp_path.glob("jit__lambda*-cache"))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
