"""The memory that a device needs for what a stage holds there, by arithmetic over shapes: nothing is compiled or allocated.

Weights, states and caches are exact: every leaf in bytes, divided as `parallel.sharding` splits it. What a program needs
beside them for a while (`*_working`) is a formula, fitted to programs compiled for the H100 (docs/speed.md) and within a
quarter of their whole memory.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from specexit_jax.engine import working
from specexit_jax.models.blockwise import BLOCK
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import init_draft
from specexit_jax.models.row_attention import FUSED_FROM
from specexit_jax.parallel.sharding import AXES, sizes_over, spec_of
from specexit_jax.parallel.tree_paths import flatten
from specexit_jax.sizing.random_weights import draft_shapes, target_shapes
from specexit_jax.training.draft import DraftTrainingConfig, init_draft_state
from specexit_jax.training.optimizer import OptimizerConfig, learning, make_optimizer

Mesh = tuple[int, int, int]  # devices on the axes data, fsdp, tensor


def mesh_over(sizes: Sequence[int], devices: int, key: str = "mesh") -> Mesh:
    """The sizes of data, fsdp and tensor with their -1 replaced; of ones alone, of which stages make no mesh, one device. key: of
    the config, which the error names. Raises ValueError where they do not cover the devices."""
    if all(size == 1 for size in sizes):
        return 1, 1, 1
    try:
        return sizes_over(sizes, devices)
    except ValueError as error:
        raise ValueError(f"config.{key}: {error}") from None


def sharded_bytes(tree: Any, mesh: Mesh = (1, 1, 1)) -> int:
    """Bytes on one device of a tree of shapes whose paths are those of parameters or of a train state."""
    abstract, whole = AbstractMesh(mesh, AXES), 0
    for path, leaf in flatten(tree).items():
        split = [name for name in spec_of(path, leaf.shape, abstract) if name]
        whole += leaf.size * leaf.dtype.itemsize // math.prod(abstract.shape[name] for name in split)
    return whole


@functools.cache
def target_bytes(target: TargetConfig, mesh: Mesh = (1, 1, 1)) -> int:
    """The target's weights in its dtype on one device."""
    return sharded_bytes(target_shapes(target), mesh)


@functools.cache
def draft_bytes(draft: DraftConfig, mesh: Mesh = (1, 1, 1)) -> int:
    """The draft's weights in its dtype on one device."""
    return sharded_bytes(draft_shapes(draft), mesh)


@functools.cache
def state_bytes(
    draft: DraftConfig,
    optimizer: OptimizerConfig,
    losses: DraftTrainingConfig,
    mesh: Mesh = (1, 1, 1),
    learn: str = "all",
) -> int:
    """The train state on one device: float32 parameters of the draft, and the moments of what is learnt (`DraftRun.learn`)."""
    return sharded_bytes(_state_shapes(draft, optimizer, losses, learn), mesh)


@functools.cache
def _state_shapes(draft: DraftConfig, optimizer: OptimizerConfig, losses: DraftTrainingConfig, learn: str) -> Any:
    made = learning(learn, make_optimizer(optimizer))

    def fresh():
        return init_draft_state(init_draft(draft, jax.random.key(0)), made, losses, draft)

    return jax.eval_shape(fresh)


def token_cache(config: TargetConfig | DraftConfig, mesh: Mesh = (1, 1, 1)) -> int:
    """Bytes of keys and values of one position of one row on a device that holds the row."""
    layers = getattr(config, "num_layers", 1)
    heads = config.num_kv_heads // (mesh[2] if config.num_kv_heads % mesh[2] == 0 else 1)
    return 2 * layers * heads * config.head_dim * jnp.dtype(config.dtype).itemsize


def rows_a_device(rows: int, mesh: Mesh) -> int:
    """Rows of a batch that one device holds."""
    return -(-rows // (mesh[0] * mesh[1]))


def cache_bytes(
    target: TargetConfig, draft: DraftConfig | None, rows: int, capacity: int, mesh: Mesh = (1, 1, 1)
) -> int:
    """Caches of `rows` rows of `capacity` positions on one device. draft None: none is there."""
    one = token_cache(target, mesh) + (token_cache(draft, mesh) if draft else 0)
    return rows_a_device(rows, mesh) * capacity * one


def decode_working(
    target: TargetConfig, draft: DraftConfig | None, rows: int, drafted: int, prompt: int, mesh: Mesh = (1, 1, 1)
) -> int:
    """What the loop needs beside weights and caches. rows: of the batch; prompt: tokens that one pass of prefill reads."""
    return working.decode_working(target, rows_a_device(rows, mesh), drafted, prompt, mesh[2])


def branches_bytes(
    target: TargetConfig, rows: int, branches: int, prefix: int, own: int, mesh: Mesh = (1, 1, 1)
) -> int:
    """The caches of forced answers: `rows` prefixes of `prefix` positions, and `own` positions of each of their branches."""
    return rows_a_device(rows, mesh) * (prefix + branches * own) * token_cache(target, mesh)


def pass_working(target: TargetConfig, tokens: int, mesh: Mesh = (1, 1, 1)) -> int:
    """One pass over `tokens` tokens of a device without a cache: features, hidden states, one layer's feed-forward."""
    size = jnp.dtype(target.dtype).itemsize
    return tokens * size * (8 * target.hidden_size + 3 * target.intermediate_size // mesh[2])


def train_working(
    target: TargetConfig,
    draft: DraftConfig,
    losses: DraftTrainingConfig,
    rows: int,
    row_length: int,
    mesh: Mesh = (1, 1, 1),
) -> int:
    """What a step needs beside weights and state. rows: of the global batch.

    The sum of what is gathered where weights are split (a layer, the draft, and a head that is not split over its vocabulary)
    and of the larger of two peaks:

    - the backward pass: of every token what each step of training-time test leaves (or a layer's feed-forward, where that is
      more), and attention scores: of a block in every step, or of whole rows where these are not attended to in blocks;
    - the losses: float32 logits of a chunk, the target's or those of all steps of the draft.

    `tensor` splits heads and feed-forward. The factors 8 and 4 are fitted to compiled programs (docs/speed.md).
    """
    size = jnp.dtype(target.dtype).itemsize
    own = rows_a_device(rows, mesh)
    gathered = 0
    if mesh[1] > 1:
        layer = 3 * target.hidden_size * target.intermediate_size * size
        gathered = layer + draft_bytes(draft)
        if target.vocab_size % (mesh[1] * mesh[2]):  # training/vocabulary.py
            gathered += target.vocab_size * target.hidden_size * size
    vocabulary = max(target.vocab_size, losses.steps * draft.draft_vocab_size)
    logits = 4 * own * min(losses.teacher_chunk, row_length) * vocabulary
    steps = 1 + losses.steps
    attended = steps * (8 * draft.num_heads * draft.head_dim // mesh[2] + 4 * draft.hidden_size)
    a_token = size * max(attended, 6 * max(target.intermediate_size, draft.intermediate_size) // mesh[2])
    plain = target.row_attention == "plain" or (target.row_attention == "auto" and row_length <= FUSED_FROM)
    blocks = steps * min(BLOCK, row_length) ** 2
    scores = 4 * own * target.num_heads * (row_length**2 if plain else blocks)
    return gathered + max(logits, own * row_length * a_token + scores)
