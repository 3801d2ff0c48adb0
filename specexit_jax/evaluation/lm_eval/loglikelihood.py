"""Log-probabilities of given continuations under the target: one teacher-forced pass; the draft is not used."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.backend import on_mesh
from specexit_jax.engine.session import Session
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target
from specexit_jax.training.chunks import map_chunks

SHORTEST = 128  # the least padded row; longer ones are padded to the next power of two
CHUNK = 1024  # tokens of a row whose logits exist at once

Pair = tuple[Sequence[int], Sequence[int]]  # context ids, continuation ids


def scores(session: Session, pairs: Sequence[Pair], batch_size: int = 1) -> Iterator[tuple[int, float, bool]]:
    """(place, log-probability in nats, whether greedy decoding would write it) of every continuation, shortest first.

    The distribution is the target's own, at temperature 1 without filters. Raises ValueError on a pair that is too
    long, or that has no context to begin from, before any work is done.
    """
    context = session.target.max_position
    for before, after in pairs:
        if not before:
            raise ValueError("A continuation needs at least one token before it.")
        if len(before) + len(after) - 1 > context:
            raise ValueError(
                f"A context of {len(before)} tokens with a continuation of {len(after)} does not fit the target's "
                f"context of {context}: give fewer examples (num_fewshot)."
            )
    order = sorted(range(len(pairs)), key=lambda place: sum(map(len, pairs[place])))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        tokens, following = _rows([pairs[place] for place in chosen], batch_size, context)
        with on_mesh(session.mesh):
            found = _scored(session.target, session.params.target, tokens, following)
        logs, best = map(np.asarray, found)
        for row, place in enumerate(chosen):
            before, after = pairs[place]
            own = slice(len(before) - 1, len(before) - 1 + len(after))
            yield place, float(logs[row, own].sum(dtype=np.float64)), bool(best[row, own].all())


def _rows(pairs: Sequence[Pair], size: int, context: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 [size, T] twice: the tokens, and the token after each; T a padded shape, zeros beyond a row's end."""
    longest = max(len(before) + len(after) for before, after in pairs) - 1
    width = min(max(SHORTEST, 1 << (longest - 1).bit_length()), context)
    tokens, following = np.zeros((size, width), np.int32), np.zeros((size, width), np.int32)
    for row, (before, after) in enumerate(pairs):
        ids = [*before, *after]
        tokens[row, : len(ids) - 1], following[row, : len(ids) - 1] = ids[:-1], ids[1:]
    return tokens, following


@functools.partial(jax.jit, static_argnums=0)
def _scored(config: TargetConfig, params: dict, tokens: jax.Array, following: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p [B, T] of each following token, and whether it is the likeliest."""
    target, variables = Target(config), {"params": params}
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    hidden = target.apply(variables, tokens, positions, logits=False).hidden

    def of_chunk(hidden: jax.Array, following: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = target.apply(variables, hidden, method="head")
        chosen = jnp.take_along_axis(logits, following[:, :, None], axis=-1)[:, :, 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1), jnp.argmax(logits, axis=-1) == following

    return map_chunks(of_chunk, CHUNK, hidden, following)
