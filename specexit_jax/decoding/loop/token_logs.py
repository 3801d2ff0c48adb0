"""Log-probabilities of the tokens that a row writes, kept in the state (DecodeSpec.logprobs).

Of the target's own distribution: the softmax at temperature 1, without filters and penalties. The verify pass computes it anyway.
A step writes those of the positions after its columns; what it writes past the committed ones, the next step replaces.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.decoding.sampling import token_log_probability
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.decoding.state import TokenLogs, write_rows


@flax.struct.dataclass
class StepLogs:
    """Of the distribution after each column: log p of `sampled`, log p of the first id of `</think>`, which an exit writes
    instead, and the most likely tokens with their log p."""

    sampled: Float[Array, "B T"]
    closing: Float[Array, "B T"]
    best: Int[Array, "B T N"]
    best_logs: Float[Array, "B T N"]


def no_logs(spec: DecodeSpec, batch: int) -> TokenLogs | None:
    """The log-probabilities of rows without tokens; None where none are kept."""
    if not spec.logprobs:
        return None
    shape = (batch, spec.capacity, spec.logprobs)
    return TokenLogs(jnp.zeros(shape[:2], jnp.float32), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32))


def step_logs(spec: DecodeSpec, logits: Float[Array, "B T V"], sampled: Int[Array, "B T"]) -> StepLogs | None:
    """See `StepLogs`; None where none are kept."""
    if not spec.logprobs:
        return None
    closing = jnp.full_like(sampled, spec.end_think_ids[0]) if spec.end_think_ids else sampled
    logits = logits.astype(jnp.float32)
    best, ids = jax.lax.top_k(logits, spec.logprobs)
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    logs = (token_log_probability(logits, tokens) for tokens in (sampled, closing))
    return StepLogs(*logs, ids.astype(jnp.int32), best - normaliser)


def with_logs(
    kept: TokenLogs | None,
    logs: StepLogs | None,
    sampled: Int[Array, "B T"],
    written: Int[Array, "B T"],
    start: Int[Array, " B"],
) -> TokenLogs | None:
    """The kept ones with those of the tokens `written` at start .. start + T - 1, which were sampled, or close the thinking."""
    if logs is None:
        return kept
    return TokenLogs(
        write_rows(kept.chosen, jnp.where(written == sampled, logs.sampled, logs.closing), start),
        write_rows(kept.best, logs.best, start),
        write_rows(kept.best_logs, logs.best_logs, start),
    )
