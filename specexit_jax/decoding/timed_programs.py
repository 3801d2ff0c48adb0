"""Compiled programs called by the host, and the time that their compilation takes."""

import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from specexit_jax.backend import on_mesh


class TimedPrograms:
    """Calls compiled functions under a mesh; the first call for each shape is counted in `compile_seconds`.

    fixed: arguments that are the same in every call, so that their shapes are not compared.
    """

    def __init__(self, mesh: Mesh | None, *fixed: Any):
        self.compile_seconds = 0.0
        self._mesh, self._fixed = mesh, fixed
        self._known: set[tuple] = set()

    def call(self, function: Callable, *arguments: Any) -> Any:
        changing = [x for x in arguments if not any(x is fixed for fixed in self._fixed)]
        called = function, tuple(_shape(argument) for argument in changing)
        start = time.perf_counter()
        with on_mesh(self._mesh):
            found = function(*arguments)
        if called not in self._known:
            self._known.add(called)
            jax.block_until_ready(found)
            self.compile_seconds += time.perf_counter() - start
        return found


def _shape(argument: Any) -> Any:
    """A static argument itself; of arrays, their shapes."""
    leaves = jax.tree.leaves(argument)
    return tuple(leaf.shape for leaf in leaves) if all(hasattr(leaf, "shape") for leaf in leaves) else argument
