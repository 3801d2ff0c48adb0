"""A tree on a mesh."""

from typing import Any

import jax
from jax.sharding import Mesh

from specexit_jax.parallel.sharding import tree_shardings


def shard_tree(tree: Any, mesh: Mesh) -> Any:
    """`tree`, whole on one device, placed by the table."""
    return jax.device_put(tree, tree_shardings(tree, mesh))
