"""For all tests: strict dtype and rank promotion, eight virtual devices, time limits, and one compilation cache."""

import gc
import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of torch, scikit-learn and BLAS: two processes share the cores

import compile_cache
import jax
import jaxlib
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

_CACHE, _WORTH = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_BESIDE = "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"  # caches of XLA's own, whose paths JAX puts into its keys
# Most of the time of the quick tests is compilation of programs that then run for milliseconds. The slow ones compute.
_CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if jaxlib.__version__.startswith("0.10."):  # XLA ends the process at a flag that it does not know
    _CHEAP += " --xla_cpu_use_fusion_emitters=false"
_MANY_MAPS = 20_000
# Files that take longest go first, so that two workers end together.
_LONGEST = (
    "test_multiprocess", "test_speculative", "test_ttt", "test_rejection", "test_slots", "test_deer", "test_launch", "test_api",
    "test_trees", "test_lm_eval_tasks", "test_generate", "test_training", "test_kills", "test_hf", "test_interruption",
    "test_loop_timing", "test_draft_run", "test_sandbox", "test_bounds", "test_risk",
)  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--compiled", type=Path, help="a folder that keeps compiled programs for the next run")


def pytest_configure(config):
    """One compilation cache for all workers and subprocesses of a run, unless the user named a folder."""
    if config.option.markexpr == "not slow":
        os.environ.setdefault("XLA_FLAGS", _CHEAP)
    if _CACHE not in os.environ:
        kept = config.option.compiled
        folder = compile_cache.begin(kept and kept.resolve())
        os.environ[_CACHE] = str(folder)
        config.add_cleanup(lambda: compile_cache.end(folder, kept and kept.resolve()))
    os.environ.setdefault(_WORTH, "0")  # reading even the smallest is faster than compiling it
    os.environ.setdefault(_BESIDE, "none")
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(os.environ[_WORTH]))
    jax.config.update("jax_persistent_cache_enable_xla_caches", os.environ[_BESIDE])


def pytest_collection_modifyitems(items):
    """Time limits of ten minutes for a quick test and three hours for a slow one; the longest files run first."""
    items.sort(key=lambda item: _LONGEST.index(item.path.stem) if item.path.stem in _LONGEST else len(_LONGEST))
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600 if item.get_closest_marker("slow") is None else 3 * 3600))


def pytest_collection_finish():
    """Tracing allocates much, and the objects of imports stay. So collections are rarer, and only of new objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_let_go():
    """A program on CPU holds dozens of memory maps, of which Linux grants a process 65,530: XLA crashes at the last one."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
        gc.collect()


# A tiny random model that thinks: its folder, loaded, and the method that exits. Made once a process, for tests that only read
# them; one that changes the folder takes `broken`. Imported here, for files that need none of it.


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with target, draft and policy.json (tests/tiny_folders.py)."""
    from tiny_folders import write_tiny

    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def broken(tiny, tmp_path) -> Path:
    """A copy of the tiny folder for a test to break."""
    return shutil.copytree(tiny, tmp_path / "broken")


@pytest.fixture(scope="session")
def session(tiny):
    from specexit_jax.engine.session import load_session

    return load_session(tiny / "target", tiny / "draft")


@pytest.fixture(scope="session")
def specexit(session, tiny):
    """The method that exits by the policy of the folder, which leaves at the first paragraph end."""
    from specexit_jax.engine.methods import make_method, read_policy

    return make_method(session, "specexit", *read_policy(session, tiny / "policy.json"), draft_tokens=2)


class _Everything(set):
    def __contains__(self, _) -> bool:
        return True


@pytest.fixture
def unnoted(monkeypatch):
    """No note is printed, as after a test that has heard them all: a note is said once a process, whichever test comes first."""
    monkeypatch.setattr("specexit_jax.notes._SAID", _Everything())
