"""The same decoding driven by the host, as in most engines: one dispatch per stage, and the samples read in every step.

Python calls the compiled stages of `decoding.loop.step` in turn, and waits for each step's tokens before it starts the
next step (an engine would look for stops, stream text and admit requests there). It is the baseline for the single loop
on the device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from specexit_jax.decoding.drafts import layer_calls
from specexit_jax.decoding.loop import candidates, step
from specexit_jax.decoding.sampling import best_token
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import DecodeState, column


def decode_from_host(
    loop: LoopContext, live: int, state: DecodeState, iterations: int
) -> tuple[DecodeState, list[list[int]]]:
    """The state (donated) after a number of iterations, and the tokens of each row. Supports greedy chains only."""
    spec = loop.spec
    if spec.tree is not None or bool(state.sampling.sampled.any()):
        raise ValueError("The loop driven by the host decodes greedily, with a chain of drafts: leave --tree off.")
    if spec.draft_tokens and spec.draft.sliding_window:
        raise ValueError("The loop driven by the host knows no sliding window: give it a draft without one.")
    written: list[list[int]] = [[] for _ in range(state.root.shape[0])]
    for _ in range(iterations):
        state, fused, committed, count = _verify(loop, live, state)
        for row, kept, number in zip(written, np.asarray(committed), np.asarray(count), strict=True):
            row.extend(kept[:number].tolist())
        if spec.draft_tokens:
            state, hidden, token = _first_draft(loop, live, state, fused, committed, count)
            drafts = [token]
            for place in range(spec.draft_tokens - 1):
                state, hidden, token = _next_draft(loop, live, state, hidden, token, jnp.int32(place))
                drafts.append(token)
            state = state.replace(drafts=jnp.concatenate(drafts, axis=1))
    return state, written


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def _verify(loop: LoopContext, live: int, state: DecodeState):
    """Verify, accept, decide, commit: the state, fused features [B, T, E], the committed tokens [B, T + 1] and how many
    candidates were kept."""
    verified = candidates.verify_candidates(loop, live, state)
    accepted = step.accept(loop, state, verified)
    observed = step.observe(loop, live, state, verified)
    decision = step.decide(loop, state, verified, accepted, observed)
    state, committed, count = step.commit(loop, state, verified, accepted, observed, decision)
    return state, observed.fused, committed, count


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def _first_draft(
    loop: LoopContext, live: int, state: DecodeState, fused, committed: Int[Array, "B U"], count: Int[Array, " B"]
):
    pairs = layer_calls.run_pairs(loop, state.draft_cache, state.length - count, fused, committed[:, 1:], live)
    hidden = column(pairs.hidden, count - 1)[:, None]
    return state.replace(draft_cache=pairs.cache), hidden, _best(loop, hidden)


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def _next_draft(
    loop: LoopContext, live: int, state: DecodeState, hidden, token: Int[Array, "B 1"], place: Int[Array, ""]
):
    out = layer_calls.layer(loop, state.draft_cache.replace(length=state.length + place), hidden, token, live)
    return state.replace(draft_cache=out.cache), out.hidden, _best(loop, out.hidden)


def _best(loop: LoopContext, hidden) -> Int[Array, "B 1"]:
    return loop.params.d2t[best_token(layer_calls.head(loop, hidden))]
