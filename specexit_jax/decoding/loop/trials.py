"""Exits on trial (DEER, arXiv 2504.15895): an answer begun at a boundary, and taken back where it turns out unlikely.

Sampling is keyed by position, so the answer tried at a boundary is the one that an exit there writes. A trial therefore is
an exit, decoded by the same steps beside rows that think, answer or try elsewhere; its row keeps what it takes to go back.
The caches need nothing of the kind: a trial wrote only positions after its boundary, and the draft's pair of the boundary
token, which is run again.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import DecodeState, Trial, column


def no_trials(loop: LoopContext, batch: int) -> Trial | None:
    """No row on trial; None where the policy never tries."""
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
    """Settles trials between `commit` and `draft`; returns (state, observed, committed, count), as `draft` reads them.

    before, state: of this step, before and after the commit. Where a trial failed, the last three are changed to hold the
    boundary token and its old successor alone, as if the step had committed just that token.
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
    # A step may be of a trial that stands or fails: neither tells how well thinking is drafted.
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
    """Exits granted in this step become trials: what they discarded is kept."""
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
    """The trials with the tokens that this step chose for their answers: up to a stop token, max_answer or max_length."""
    places = verified.positions + 1  # of the sampled tokens
    first = trial.start + len(loop.spec.end_think_ids)
    last = jnp.minimum(_newest(state), _limit(loop, trial, state) - 1)
    read = (trial.start >= 0)[:, None] & (places >= first[:, None]) & (places <= last[:, None])
    return trial.replace(
        log_probability=trial.log_probability + jnp.sum(jnp.where(read, verified.log_probabilities, 0.0), axis=1),
        length=trial.length + jnp.sum(read.astype(jnp.int32), axis=1),
    )


def taken_back(state: DecodeState, rows: Bool[Array, " B"]) -> DecodeState:
    """Those rows, which are on trial, as they were at the boundary: thinking, their old successor to it as root."""
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
    """The state for whoever looks at rows between steps: without the answers that may yet be taken back."""
    return state if state.trial is None else taken_back(state, state.trial.start >= 0)


def _newest(state: DecodeState) -> Int[Array, " B"]:
    """Position of the last token chosen: the root, or the stop token that ended the row."""
    return state.length - state.finished.astype(jnp.int32)


def _limit(loop: LoopContext, trial: Trial, state: DecodeState) -> Int[Array, " B"]:
    """The position that an answer on trial may not reach."""
    return jnp.minimum(state.max_length, trial.start + len(loop.spec.end_think_ids) + loop.policy.max_answer)
