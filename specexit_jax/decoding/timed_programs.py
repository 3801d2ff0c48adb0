"""Calls of compiled programs by the host, with the time that compilation takes."""

import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from specexit_jax.backend import on_mesh


class TimedPrograms:
    """Calls jitted functions under a mesh. The first call of a function with new shapes counts as compilation.

    fixed: arguments that are the same in every call; their shapes are not compared. compile_seconds: of all such first calls.
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
    """What compilation depends on: the shapes of a tree of arrays; a static argument itself."""
    leaves = jax.tree.leaves(argument)
    return tuple(leaf.shape for leaf in leaves) if all(hasattr(leaf, "shape") for leaf in leaves) else argument
