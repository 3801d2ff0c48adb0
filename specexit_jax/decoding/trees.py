"""Draft trees as arithmetic on parents: the attention mask of the verify pass, and the accepted path.

Node 0 is the root (chosen, not drafted), nodes 1 .. N are drafts. A parent has a lower number than its children. EAGLE-2
(arXiv 2406.16858, section 4) expands the most likely nodes of each depth and verifies the most likely of all drawn nodes.
"""

import dataclasses

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specexit_jax.models.cache import VALUE_AXIS, Cache, key_axis, put


@dataclasses.dataclass(frozen=True)
class TreeShape:
    """The static size of a draft tree.

    depth: drafts on the longest path. top_k: nodes that are expanded at each depth, and children of each. total: drafts that
    are verified, out of top_k + (depth - 1) top_k² drawn ones. Raises ValueError where total is not between 1 and that.
    """

    depth: int
    top_k: int
    total: int

    def __post_init__(self):
        if min(self.depth, self.top_k, self.total) < 1 or self.total > self.drawn:
            raise ValueError(
                f"A draft tree of depth {self.depth} and top_k {self.top_k} draws {max(self.drawn, 0)} drafts, so its "
                f"total must be between 1 and that, not {self.total}."
            )

    @property
    def drawn(self) -> int:
        """Number of drawn drafts, of which `total` are verified."""
        return self.top_k + (self.depth - 1) * self.top_k**2

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of verified drafts at each depth, for rejection sampling, which must fix it before drawing.

        The total is divided evenly over the depths, but no depth except the last has more than top_k nodes, because only top_k
        nodes can be expanded. The last depth has the rest.
        """
        each, over = divmod(self.total, self.depth)
        expanded = [min(each + (depth < over), self.top_k) for depth in range(self.depth - 1)]
        return tuple(size for size in (*expanded, self.total - sum(expanded)) if size)

    @property
    def fixed(self) -> int:
        """The largest total that `sizes` allows: the last depth then has top_k children of each of top_k nodes."""
        return self.top_k if self.depth == 1 else (self.depth - 1) * self.top_k + self.top_k**2

    @property
    def siblings(self) -> int:
        """The most children that one node can have."""
        return min(self.top_k, max(self.sizes))

    @property
    def draft_positions(self) -> int:
        """Cache positions that the draft's own steps write: all depths but the last are expanded."""
        return (self.depth - 1) * self.top_k


@flax.struct.dataclass
class Topology:
    """The structure of each row's draft tree: for nodes 1 .. N the parent's number (0: the root) and the depth (from 1)."""

    parents: Int[Array, "B N"]
    depths: Int[Array, "B N"]


def ancestors(topology: Topology) -> Bool[Array, "B T T"]:
    """[b, t, u]: whether node u is node t or one of its ancestors; T = N + 1 nodes, the root first."""
    number = topology.parents.shape[1] + 1
    nodes = jnp.arange(number, dtype=jnp.int32)
    parents = jnp.pad(topology.parents, ((0, 0), (1, 0)))
    seen = (parents[:, :, None] == nodes[None, None, :]) | (nodes[:, None] == nodes[None, :])[None]
    steps = 1
    while steps < number:  # each product doubles the number of generations
        product = jnp.einsum("btu,buw->btw", seen.astype(jnp.float32), seen.astype(jnp.float32))
        seen, steps = product > 0, 2 * steps
    return seen


def node_depths(topology: Topology) -> Int[Array, "B T"]:
    """The depth of every node; the root has depth 0."""
    return jnp.pad(topology.depths, ((0, 0), (1, 0)))


def descend(
    nodes: Int[Array, "B T"], topology: Topology, sampled: Int[Array, "B T"], depth: int
) -> tuple[Int[Array, "B P"], Int[Array, " B"]]:
    """(the accepted path as node numbers [B, depth + 1], its length [B] in nodes, the root included).

    It goes from the root to the child that equals its parent's sample, as long as there is one. Beyond its length the path
    repeats its last node. nodes: their tokens; sampled: the token after each node.
    """
    parents = jnp.pad(topology.parents, ((0, 0), (1, 0)), constant_values=-1)
    numbers = jnp.arange(nodes.shape[1], dtype=jnp.int32)
    here = jnp.zeros((nodes.shape[0],), jnp.int32)
    path, length, alive = [here], jnp.ones_like(here), jnp.ones_like(here, bool)
    for _ in range(depth):
        wanted = jnp.take_along_axis(sampled, here[:, None], axis=1)
        child = (parents == here[:, None]) & (nodes == wanted)
        alive = alive & child.any(axis=1)
        first = jnp.min(jnp.where(child, numbers[None, :], jnp.int32(nodes.shape[1] - 1)), axis=1)
        here = jnp.where(alive, first, here)
        length = length + alive.astype(jnp.int32)
        path.append(here)
    return jnp.stack(path, axis=1), length


def deepest(topology: Topology, depth: int) -> Int[Array, "B P"]:
    """The path [B, depth + 1] to the first of the deepest nodes, in the form of `descend`."""
    depths, parents = node_depths(topology), jnp.pad(topology.parents, ((0, 0), (1, 0)))
    last = jnp.argmax(depths, axis=1).astype(jnp.int32)
    length = jnp.take_along_axis(depths, last[:, None], axis=1)[:, 0]
    path, here = [last] * (depth + 1), last
    for level in range(depth, -1, -1):
        path[level] = here
        # A row whose path is shorter stays at its end until `level` reaches it.
        up = jnp.take_along_axis(parents, here[:, None], axis=1)[:, 0]
        here = jnp.where(length >= level, up, here)
    return jnp.stack(path, axis=1)


def compact(cache: Cache, start: Int[Array, " B"], path: Int[Array, "B P"]) -> Cache:
    """The cache with the nodes of `path` at positions start .. start + P - 1. Before, node n is at position start + n."""
    keys = tuple(_moved(k, start, path, key_axis()) for k in cache.k)
    values = tuple(_moved(v, start, path, VALUE_AXIS) for v in cache.v)
    return cache.replace(k=keys, v=values)


def _moved(array: Array, start: Int[Array, " B"], path: Int[Array, "B P"], axis: int) -> Array:
    shape = [1] * 4
    shape[0], shape[axis] = path.shape
    index = (start[:, None] + path).reshape(shape)
    chosen = jnp.take_along_axis(array, index, axis=axis, mode="clip")
    return put(array, chosen, start, axis)
