"""The decoding loop: verify, accept, decide, commit, draft. It runs on the device from the prompt to the final answer.

One loop serves all methods (docs/method.md §4): `think` is 0 drafts and NeverExit, `probe` 0 drafts and a policy,
`eagle3` K drafts and NeverExit, `specexit` K drafts and a policy. Sampling is keyed by position, so all of them write the same
tokens up to the exit.

Attention reads a live prefix of the caches, whose size is static. `decode` runs one loop for each live prefix, from small to
large, each while the longest active row fits.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from specexit_jax.backend import on_cpu
from specexit_jax.decoding.loop.prefill import empty_state, prefill, resized
from specexit_jax.decoding.loop.step import step
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeResult, DecodeState, result_of
from specexit_jax.exits.readings import READINGS


@functools.partial(jax.jit, static_argnums=0)
def decode(
    spec: DecodeSpec,
    params: DecodeParams,
    rows: PromptRows,
    policy: Any,
    boundaries: Any,
) -> DecodeResult:
    """Continues the prompts until each row has a stop token or max_length tokens, prompt included.

    max_length is cut to the buffer's length. policy, boundaries: see `exits.protocols`. Raises ValueError where the prompts are
    longer than the buffer, and where the spec cannot serve the policy (`make_loop`).
    """
    batch, width = rows.prompts.shape
    if width > spec.buffer_length:
        raise ValueError(f"Prompts of {width} tokens do not fit the buffer of {spec.buffer_length}: enlarge it.")
    loop = make_loop(spec, params, policy, boundaries)
    prefixes = spec.prefixes_after(width)
    state = empty_state(loop, batch, spec.capacities_for(prefixes[0]))
    state = prefill(loop, (width, prefixes[0]), state, rows, jnp.zeros((batch,), jnp.int32))
    return finished(loop, prefixes, rows, state)


def finished(loop: LoopContext, prefixes: Sequence[int], rows: PromptRows, state: DecodeState) -> DecodeResult:
    """The result of a loop for each of these live prefixes. Where all rows are done, the others are left out on a CPU, where
    each would copy the caches."""
    spec, live, later = loop.spec, prefixes[0], prefixes[1:]
    state = resized(spec, live, state)
    state = jax.lax.while_loop(functools.partial(can_step, spec, live), functools.partial(step, loop, live), state)
    end = lambda state: result_of(state, rows.prompt_length, spec.buffer_length)  # noqa: E731
    if not later:
        return end(state)
    if not on_cpu():
        return finished(loop, later, rows, state)
    return jax.lax.cond(jnp.all(state.done), end, functools.partial(finished, loop, later, rows), state)


def make_loop(spec: DecodeSpec, params: DecodeParams, policy: Any, boundaries: Any) -> LoopContext:
    """What all iterations share. Raises ValueError where the policy reads signals that the draft does not have, where it exits
    but `</think>` has no ids, and where its exits are trials but it sees readings, the rows have own rules or log-probabilities are
    kept."""
    if policy.reads and not spec.has_signals:
        raise ValueError("This exit policy reads signals, but there is no draft model with signal heads: give one.")
    if missing := [name for name in policy.reads if name not in (*READINGS, *spec.draft.signal_names)]:
        raise ValueError(f"This exit policy reads {', '.join(missing)}, which the draft model has no signal head for.")
    if not spec.end_think_ids and policy.exits:
        raise ValueError("An exit writes `</think>`, but end_think_ids is empty: give its token ids.")
    loop = LoopContext(spec, params, policy, boundaries, head_of(spec, params))
    if loop.tries and loop.takes_readings:  # a failed trial would have to bring those of the discarded root back
        raise ValueError("An exit policy with trials cannot see the target's readings.")
    if loop.tries and spec.own_rules:
        raise ValueError("An exit policy with trials decodes rows by its own rules alone: leave the rows' own out.")
    if loop.tries and spec.logprobs:  # a failed trial would have to bring those of the discarded root back
        raise ValueError("Log-probabilities are not kept where an exit policy has trials: leave logprobs at 0.")
    return loop


def head_of(spec: DecodeSpec, params: DecodeParams) -> Float[Array, "D V"] | None:
    """The transpose of a tied embedding table, for verify steps on CPU; None elsewhere.

    The CPU backend would otherwise transpose the table in every step, which takes 3.6 times as long at V = 1,536. Other
    backends read both layouts equally fast.
    """
    if not (spec.draft_tokens and spec.target.tie_embeddings and on_cpu()):
        return None
    return jax.lax.optimization_barrier(params.target["embed"]["embedding"].astype(spec.target.dtype).T)


def can_step(spec: DecodeSpec, live: int, state: DecodeState) -> Bool[Array, ""]:
    """Whether some row is active and one step of the longest active row fits the live prefix."""
    longest = jnp.max(jnp.where(state.done, 0, state.length))
    return ~jnp.all(state.done) & (longest + spec.reach <= live)
