"""Layers whose weights lie in one array a kind, [L, ...]: one body for all of them, traced and compiled once.

For passes over whole rows (training), where a layer's arithmetic hides the reading of its weights out of the array. In
decoding, which mostly reads weights, every step would copy them; there layers are apart (docs/speed.md).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.backend import rows_apart

LAYERS = "layers"  # the stack's place among a target's parameters, instead of layers_0, layers_1, ...


def stack_layers(params: dict, join: Callable[[list[jax.Array], str], jax.Array] | None = None) -> dict:
    """A target's parameters with its layers stacked.

    The layers are taken out of `params`, array kind by array kind, so that each kind is let go before the next is joined. join
    (arrays, path): L arrays as one; default: `jnp.stack`.
    """
    join = join or (lambda arrays, path: jnp.stack(arrays))
    layers = [params.pop(f"{LAYERS}_{index}") for index in range(sum(name.startswith(f"{LAYERS}_") for name in params))]
    return params | {LAYERS: _joined(layers, LAYERS, join)}


def _joined(nodes: list[dict], path: str, join: Callable[[list[jax.Array], str], jax.Array]) -> dict:
    """The trees as one whose leaves are joined; they are emptied."""
    found = {}
    for name in list(nodes[0]):
        parts, own = [node.pop(name) for node in nodes], f"{path}/{name}"
        found[name] = _joined(parts, own, join) if isinstance(parts[0], dict) else join(parts, own)
        del parts
    return found


def scan_layers(
    run: Callable[[dict, jax.Array], jax.Array], layers: dict, x: jax.Array, capture: Sequence[int]
) -> tuple[jax.Array, list[jax.Array]]:
    """x [B, T, D] after all layers, run(weights of one, x), and the inputs of the layers `capture`.

    Only those are kept: every layer writes its input into one array, that of all others into a place that is read by none.
    """
    count, kept = len(jax.tree.leaves(layers)[0]), sorted(set(capture))
    places = np.full((count,), len(kept), np.int32)
    places[kept] = np.arange(len(kept))

    def one(carry, layer):
        (x, seen), (weights, place) = carry, layer
        seen = rows_apart(jax.lax.dynamic_update_index_in_dim(seen, x, place, 1))
        return (rows_apart(run(weights, x)), seen), None

    nothing = rows_apart(jnp.zeros((x.shape[0], len(kept) + 1, *x.shape[1:]), x.dtype))
    (x, seen), _ = jax.lax.scan(one, (x, nothing), (layers, jnp.asarray(places)))
    return x, [seen[:, kept.index(layer)] for layer in capture]
