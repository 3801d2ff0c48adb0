"""What the decoding loop is compiled for (DecodeSpec), carries (DecodeState) and returns (DecodeResult)."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.backend import on_cpu
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.models.cache import SPARE, Cache
from specexit_jax.models.config import DraftConfig, TargetConfig


@dataclasses.dataclass(frozen=True)
class DecodeSpec:
    """Everything static: two calls with equal specs and shapes share one compilation.

    end_think_ids: those of `</think>`; () for a model that does not think, which no policy can make exit.
    draft_tokens is K, the drafts verified in a step: 0 decodes one token a step and needs no draft model, save to read
    signals (`probe`). buffer_length is the most tokens a row may ever have, prompt included. live_prefixes are the
    cache prefixes that attention is compiled for, each a copy of the loop: () for 256 and doubling from there.
    """

    target: TargetConfig
    buffer_length: int
    stop_ids: tuple[int, ...]
    end_think_ids: tuple[int, ...]
    draft: DraftConfig | None = None
    draft_tokens: int = 0
    sampling: Sampling = Sampling()
    live_prefixes: tuple[int, ...] = ()
    record_signals: bool = False

    def __post_init__(self):
        if self.draft_tokens < 0:
            raise ValueError(f"draft_tokens must be 0 or more, but it is {self.draft_tokens}.")
        if self.draft_tokens and self.draft is None:
            raise ValueError(
                f"draft_tokens is {self.draft_tokens}, but there is no draft model: give one, or set it to 0."
            )
        if self.record_signals and not self.has_signals:
            raise ValueError("record_signals needs a draft model with signal heads: give one, or leave it off.")
        if self.buffer_length < 2:
            raise ValueError(
                f"buffer_length must be at least 2 (a prompt token and an answer), not {self.buffer_length}."
            )
        if set(self.stop_ids) & set(self.end_think_ids):
            raise ValueError(f"stop_ids {self.stop_ids} and end_think_ids {self.end_think_ids} share an id.")

    @property
    def has_signals(self) -> bool:
        return self.draft is not None and self.draft.signals != "none"

    @property
    def slots(self) -> int:
        """Cache slots a row: a step may write drafts, never read again, past the last token the buffer can hold."""
        return self.prefixes[-1]

    def target_slots(self, live: int) -> int:
        """Slots of the target's cache while `live` of them are read: on CPU a cache grows with what is read of it."""
        grows = self.draft_tokens > 0 and on_cpu()
        return live if grows else self.slots + SPARE

    def prefixes_after(self, width: int) -> tuple[int, ...]:
        """The live prefixes that hold prompts padded to `width` and a step after them."""
        return tuple(size for size in self.prefixes if size >= width + self.reach)

    @property
    def reach(self) -> int:
        """Slots past a row's length that one step may touch: K + 1 verified and a root, then K - 1 steps of the draft."""
        return 2 * self.draft_tokens + 2

    @property
    def prefixes(self) -> tuple[int, ...]:
        """The live prefixes in use, ascending; the last holds a full buffer and the drafts that reach past it."""
        return prefixes_of(self.live_prefixes, self.buffer_length + self.reach)


def prefixes_of(chosen: tuple[int, ...], longest: int) -> tuple[int, ...]:
    """The chosen live prefixes (none: 256 and doubling) below `longest`, then it, rounded up to a multiple of 16."""
    whole = -(-longest // 16) * 16
    chosen = chosen or tuple(2**power for power in range(8, 31))
    return (*sorted(size for size in set(chosen) if size < whole), whole)


@flax.struct.dataclass
class DecodeParams:
    """The weights. draft and d2t (absolute target id of each draft-vocabulary id) are None where there is no draft."""

    target: Any
    draft: Any = None
    d2t: Int[Array, " W"] | None = None

    @property
    def draft_embedding(self) -> Float[Array, "V E"]:
        """The embedding table that the draft reads: its own, or the target's."""
        return (self.draft if "embed" in self.draft else self.target)["embed"]["embedding"]


@flax.struct.dataclass
class Loop:
    """What every iteration shares: the compiled choices, the weights, the exit policy and the boundary table.

    boundaries: bool [V], or an object whose mask(tokens, following) also looks at the token that follows.
    head: a tied table as [D, V], laid out once before the loop where that pays (see `head_of`), else None.
    """

    spec: DecodeSpec = flax.struct.field(pytree_node=False)
    params: DecodeParams
    policy: Any
    boundaries: Any
    head: Float[Array, "D V"] | None = None

    @property
    def reads_signals(self) -> bool:
        return self.policy.needs_signals or self.spec.record_signals

    @property
    def late_signals(self) -> bool:
        """Signals sit on the draft layer's output, where token t + 1's come out of pair (t, t + 1)."""
        return self.reads_signals and self.spec.draft.signals == "draft"

    @property
    def runs_draft(self) -> bool:
        return self.spec.draft_tokens > 0 or self.late_signals


@flax.struct.dataclass
class DecodeState:
    """The carry of the loop: every row in its own state.

    Tokens 0..length-1 are final, their keys and values in the caches; `root`, already chosen, belongs at position
    `length`; `drafts` guess the positions after it. Whatever lies beyond in tokens and caches is dead weight.
    """

    tokens: Int[Array, "B S"]
    length: Int[Array, " B"]
    max_length: Int[Array, " B"]
    keys: Array  # [B] typed PRNG keys, one a request
    root: Int[Array, " B"]
    drafts: Int[Array, "B K"]
    noise: Float[Array, "B T V"] | None  # of the positions after `length`; sampled drafts only, which share it
    target_cache: Cache
    draft_cache: Cache | None
    root_signals: Float[Array, "B 3"] | None  # raw, of the root; placement 'draft' only, which knows them a step ahead
    policy_state: Any
    thinking: Bool[Array, " B"]
    done: Bool[Array, " B"]
    finished: Bool[Array, " B"]  # a stop token was written
    think_end: Int[Array, " B"]  # position of the first id of </think>; -1 while there is none
    exit_position: Int[Array, " B"]  # the same, where an exit forced it
    exit_signals: Float[Array, "B 3"]  # smoothed, at the boundary that the exit cut after
    steps: Int[Array, " B"]
    accept_histogram: Int[Array, "B T"]
    signals: Float[Array, "B S 3"] | None  # activated, of every generated token; record_signals only


@flax.struct.dataclass
class DecodeResult:
    """What decode() returns; positions are absolute (prompt included), -1 where there is none.

    accept_histogram[b, n] counts the verify steps that accepted n drafts; steps cut by an exit or by the length limit,
    and those that only write out a forced `</think>`, are left out. Tokens at and after `length` are 0.
    """

    tokens: Int[Array, "B S"]
    length: Int[Array, " B"]
    prompt_length: Int[Array, " B"]
    finished: Bool[Array, " B"]
    think_end: Int[Array, " B"]
    exit_position: Int[Array, " B"]
    exit_signals: Float[Array, "B 3"]
    steps: Int[Array, " B"]
    accept_histogram: Int[Array, "B T"]
    signals: Float[Array, "B S 3"] | None


def result_of(state: DecodeState, prompt_length: Int[Array, " B"], buffer_length: int) -> DecodeResult:
    """The finished state without its caches, cut to the buffer and cleared of dead weight."""
    tokens = state.tokens[:, :buffer_length]
    written = jnp.arange(buffer_length, dtype=jnp.int32)[None, :] < state.length[:, None]
    signals = state.signals
    if signals is not None:
        signals = jnp.where(written[:, :, None], signals[:, :buffer_length], jnp.float32(0))
    return DecodeResult(
        tokens=jnp.where(written, tokens, 0),
        length=state.length,
        prompt_length=prompt_length,
        finished=state.finished,
        think_end=state.think_end,
        exit_position=state.exit_position,
        exit_signals=state.exit_signals,
        steps=state.steps,
        accept_histogram=state.accept_histogram,
        signals=signals,
    )


def write_rows(buffer: Array, values: Array, start: Int[Array, " B"]) -> Array:
    """buffer [B, S, ...] with values [B, T, ...] written at start_b .. start_b + T - 1 of each row.

    One row: a dynamic update, which a loop does in place. Several: one fused select over the (small) buffer, where a
    batched dynamic update would become a scatter, and on a CPU a loop over the rows.
    """
    if buffer.shape[0] == 1:
        index = (jnp.int32(0), start[0]) + (jnp.int32(0),) * (buffer.ndim - 2)
        return jax.lax.dynamic_update_slice(buffer, values, index)
    rows, width = values.shape[:2]
    tail = (1,) * (buffer.ndim - 2)
    column = jnp.arange(buffer.shape[1], dtype=jnp.int32)[None, :] - start[:, None]
    for offset in range(width):
        here = (column == offset).reshape(rows, -1, *tail)
        buffer = jnp.where(here, values[:, offset : offset + 1], buffer)
    return buffer


def column(values: Array, index: Int[Array, " B"]) -> Array:
    """values[b, index_b] of every row: [B, T, ...] to [B, ...]; an index outside is clipped (rows that are done)."""
    picker = index.reshape((-1,) + (1,) * (values.ndim - 1))
    return jnp.take_along_axis(values, picker, axis=1, mode="clip")[:, 0]
