"""The leaves of a pytree by path, as files and sharding rules name them."""

from typing import Any

import jax


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by slash-joined path, as in `layers/0/attention/qkv`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
