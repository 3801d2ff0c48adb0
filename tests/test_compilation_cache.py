"""Compiled programs kept between processes: where, whole or not at all, and never an error."""

import errno
import os
import stat
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax._src import compilation_cache as theirs

from launch import door
from specexit_jax.storage import compilation_cache
from specexit_jax.storage.compilation_cache import SWITCH, THEIRS, Entries, keep_programs


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache directory, and a JAX that keeps nothing as yet."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    for name in (THEIRS, SWITCH, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(theirs, "get_file_cache", theirs.get_file_cache)
    monkeypatch.setattr("specexit_jax.notes._SAID", set())
    jax.config.update("jax_compilation_cache_dir", None)
    theirs.reset_cache()
    yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
    theirs.reset_cache()


def compiled(number: float) -> float:
    return float(jax.jit(lambda x: x * jnp.float32(number))(jnp.float32(2)))


def key_of(entry) -> str:
    """JAX's key of an entry; its file's name has the number of threads besides."""
    return entry.name.rpartition("-")[0]


def test_programs_are_kept_and_the_folder_is_told_once(cache, capsys):
    folder = keep_programs()
    assert folder.is_relative_to(cache / "specexit_jax") and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert f"compiled programs are kept in {folder}" in capsys.readouterr().err
    compiled(3.25)
    (entry,) = [path for path in folder.iterdir() if "jit__lambda" in path.name]
    assert Entries(folder).get(key_of(entry))
    theirs.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    assert keep_programs() == folder and capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"half a pro", None], ids=["empty", "other", "torn"])
def test_half_an_entry_is_compiled_again_and_replaced(cache, content):
    folder = keep_programs()
    compiled(4.25)
    (entry,) = [path for path in folder.iterdir() if "jit__lambda" in path.name]
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2] if content is None else content)
    jax.clear_caches()
    assert compiled(4.25) == 8.5
    assert Entries(folder).get(key_of(entry))


def test_a_full_disk_is_told_of_once_and_leaves_nothing(cache, monkeypatch, capsys):
    folder, tried = keep_programs(), []

    def full(*_):
        tried.append(1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(compilation_cache.os, "replace", full)
    assert (compiled(5.25), compiled(6.25)) == (10.5, 12.5)
    assert capsys.readouterr().err.count("no longer kept") == 1
    assert len(tried) == 1 and list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_of(cache, capsys):
    cache.write_text("a file stands here")
    assert keep_programs() is None
    assert "compiled programs are not kept" in capsys.readouterr().err
    assert jax.config.jax_compilation_cache_dir is None


def test_it_can_be_turned_off_and_jaxs_own_setting_wins(cache, monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    assert keep_programs() is None
    monkeypatch.setenv(SWITCH, str(cache / "elsewhere"))
    monkeypatch.setenv(THEIRS, str(cache / "theirs"))
    assert keep_programs() is None
    monkeypatch.delenv(THEIRS)
    jax.config.update("jax_compilation_cache_dir", str(cache / "theirs"))
    assert keep_programs() is None
    jax.config.update("jax_compilation_cache_dir", None)
    assert keep_programs().parent == cache / "elsewhere"


def test_another_machine_has_another_folder(cache, monkeypatch):
    first = keep_programs()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    jax.config.update("jax_compilation_cache_dir", None)
    assert keep_programs() != first


def test_another_number_of_threads_has_other_entries(cache, monkeypatch):
    """A command may set it after the folder has been chosen."""
    entries = Entries(keep_programs())
    monkeypatch.setenv("NPROC", "1")
    entries.put("key", b"program")
    assert entries.get("key") == b"program"
    monkeypatch.setenv("NPROC", "61")
    assert entries.get("key") is None


@pytest.mark.parametrize("asked", ["", "on", "1"])
def test_what_asks_for_the_usual_folder(cache, monkeypatch, asked):
    monkeypatch.setenv(SWITCH, asked)
    assert keep_programs().parent == cache / "specexit_jax"


def test_a_command_that_keeps_no_programs_keeps_none_later_either(cache, monkeypatch):
    """SpecExit.load asks again, after the command has."""

    class Given(dict):
        compilation_cache, traceback = False, True

    monkeypatch.setenv(SWITCH, "")
    monkeypatch.setattr(door.flags, "FLAGS", Given(verbosity=SimpleNamespace(present=True)))
    found = []
    door._guarded(lambda: found.append(keep_programs()))
    assert found == [None] and not cache.exists()


def test_the_entries_used_least_recently_go_first(cache, monkeypatch):
    folder = keep_programs()
    for age, name in enumerate(("new", "old", "older")):
        (folder / name).write_bytes(b"x" * 10)
        os.utime(folder / name, (10_000 - age, 10_000 - age))
    monkeypatch.setattr(compilation_cache, "LARGEST", 15)
    jax.config.update("jax_compilation_cache_dir", None)
    keep_programs()
    assert [path.name for path in folder.iterdir()] == ["new"]
