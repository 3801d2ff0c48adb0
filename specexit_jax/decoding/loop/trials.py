"""Exits on trial (DEER, arXiv 2504.15895): an answer is decoded at a boundary, and discarded if it is not likely enough.

Sampling is keyed by position, so the answer on trial is the answer that an exit there writes. A trial is therefore decoded
like an exit, by the same steps as the other rows of the batch. Its row keeps what is needed to undo it (`state.Trial`). The
caches need no copy: a trial overwrites only positions after its boundary, and the draft's pair of the boundary token, which is
computed again.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import DecodeState, Trial, column


def no_trials(loop: LoopContext, batch: int) -> Trial | None:
    """The trials of rows that have none; None where the policy has no trials."""
    if not loop.tries:
        return None
    zero, spec = jnp.zeros((batch,), jnp.int32), loop.spec
    return Trial(
        start=jnp.full((batch,), -1, jnp.int32),
        root=zero,
        fused=jnp.zeros((batch, spec.draft.hidden_size), spec.target.dtype) if loop.runs_draft else None,
        log_probability=jnp.zeros((batch,), jnp.float32),
        length=zero,
        failed=zero,
        failed_tokens=zero,
    )


def settle(loop: LoopContext, before: DecodeState, state: DecodeState, verified, observed, decision, committed, count):
    """Ends trials between `commit` and `draft`; returns (state, observed, committed, count) for `draft`.

    before, state: before and after this step's commit. Where a trial fails, its row goes back to the boundary, and the other
    three describe a step that committed the boundary token alone, with its original successor as root.
    """
    trial = read_answers(loop, before.trial, state, verified)
    tried = trial.start >= 0
    ends = tried & (state.finished | (_newest(state) + 1 >= _limit(loop, trial, state)))
    mean = trial.log_probability / jnp.maximum(trial.length, 1).astype(jnp.float32)
    fails = ends & ~loop.policy.stands(mean, trial.length)
    trial = trial.replace(
        failed=trial.failed + fails.astype(jnp.int32),
        failed_tokens=trial.failed_tokens + jnp.where(fails, trial.length, 0),
    )
    # Steps of a trial are not counted: the histogram is about the thinking.
    histogram = jnp.where(tried[:, None], before.accept_histogram, state.accept_histogram)
    state = taken_back(state.replace(trial=trial, accept_histogram=histogram), fails)
    trial = state.trial
    state = state.replace(trial=trial.replace(start=jnp.where(ends, -1, trial.start)))
    if loop.runs_draft:
        observed = observed.replace(fused=jnp.where(fails[:, None, None], trial.fused[:, None], observed.fused))
    committed = jnp.where(fails[:, None], state.root[:, None], committed)
    count = jnp.where(fails, 1, count)
    return begin(state, verified, observed, decision), observed, committed, count


def begin(state: DecodeState, verified, observed, decision) -> DecodeState:
    """Exits of this step become trials: the discarded root and the boundary's fused features are kept."""
    trial, exits = state.trial, decision.exits
    fused = trial.fused
    if fused is not None:
        fused = jnp.where(exits[:, None], column(observed.fused, decision.column), fused)
    return state.replace(
        trial=trial.replace(
            start=jnp.where(exits, state.length, trial.start),
            root=jnp.where(exits, column(verified.sampled, decision.column), trial.root),
            fused=fused,
            log_probability=jnp.where(exits, 0.0, trial.log_probability),
            length=jnp.where(exits, 0, trial.length),
        )
    )


def read_answers(loop: LoopContext, trial: Trial, state: DecodeState, verified) -> Trial:
    """The trials with this step's answer tokens added, up to a stop token, max_answer or max_length."""
    places = verified.positions + 1  # of the sampled tokens
    first = trial.start + len(loop.spec.end_think_ids)
    last = jnp.minimum(_newest(state), _limit(loop, trial, state) - 1)
    read = (trial.start >= 0)[:, None] & (places >= first[:, None]) & (places <= last[:, None])
    return trial.replace(
        log_probability=trial.log_probability + jnp.sum(jnp.where(read, verified.log_probabilities, 0.0), axis=1),
        length=trial.length + jnp.sum(read.astype(jnp.int32), axis=1),
    )


def taken_back(state: DecodeState, rows: Bool[Array, " B"]) -> DecodeState:
    """The state with these rows, which are on trial, back at the boundary: thinking, with the discarded root."""
    trial = state.trial
    return state.replace(
        length=jnp.where(rows, trial.start, state.length),
        root=jnp.where(rows, trial.root, state.root),
        thinking=state.thinking | rows,
        done=state.done & ~rows,
        finished=state.finished & ~rows,
        think_end=jnp.where(rows, -1, state.think_end),
        exit_position=jnp.where(rows, -1, state.exit_position),
    )


def settled(state: DecodeState) -> DecodeState:
    """The state without answers on trial, for reading results between steps."""
    return state if state.trial is None else taken_back(state, state.trial.start >= 0)


def _newest(state: DecodeState) -> Int[Array, " B"]:
    """Position of the last chosen token: the root, or the stop token that ended the row."""
    return state.length - state.finished.astype(jnp.int32)


def _limit(loop: LoopContext, trial: Trial, state: DecodeState) -> Int[Array, " B"]:
    """The first position at which an answer on trial may have no token."""
    return jnp.minimum(state.max_length, trial.start + len(loop.spec.end_think_ids) + loop.policy.max_answer)
