"""Strict arithmetic and eight virtual devices for every test; nothing compiled outlives its file; no test waits for ever."""

import gc

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_collection_modifyitems(items):
    """Ten minutes for a test, which none of the quick ones comes near; the slow ones take what they take."""
    for item in items:
        if item.get_closest_marker("slow") is None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_let_go():
    """A program on CPU holds dozens of memory maps, of which Linux grants a process 65,530: XLA crashes at the last one."""
    yield
    jax.clear_caches()
    gc.collect()
