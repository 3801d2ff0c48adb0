"""What the decoding loop is compiled for (DecodeSpec), and what every iteration shares (LoopContext)."""

import dataclasses
from typing import Any

import flax.struct
from jaxtyping import Array, Float, Int, Int8

from specexit_jax.backend import on_cpu
from specexit_jax.decoding.sampling import RULES
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.models.cache import SPARE
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.ragged_attention import LANES


@dataclasses.dataclass(frozen=True)
class DecodeSpec:
    """Everything static: two calls with equal specs and shapes share one compilation.

    How tokens are sampled is not among it (`SamplingRows`), save the rule by which drafts are accepted (`Sampling.rule`).
    end_think_ids: those of `</think>`; () for a model that does not think, which no policy can make exit.
    draft_tokens is K, the most drafts a step can accept: 0 decodes one token a step and needs no draft model, save to
    read signals (`probe`). tree: verify a tree of that depth K instead of a chain. buffer_length is the most tokens a
    row may ever have, prompt included. live_prefixes are the cache prefixes that attention is compiled for, each a copy
    of the loop: () for 256 and doubling from there; a kernel that follows the rows' own lengths needs the whole buffer's
    alone. simulate_accept_length: tokens a step yields on average, whatever
    the target says of them: for timing a loop without a trained draft.
    """

    target: TargetConfig
    buffer_length: int
    stop_ids: tuple[int, ...]
    end_think_ids: tuple[int, ...]
    draft: DraftConfig | None = None
    draft_tokens: int = 0
    rule: str = "keyed"
    live_prefixes: tuple[int, ...] = ()
    record_signals: bool = False
    tree: TreeShape | None = None
    simulate_accept_length: float | None = None

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, but it is {self.rule!r}.")
        if self.draft_tokens < 0:
            raise ValueError(f"draft_tokens must be 0 or more, but it is {self.draft_tokens}.")
        if self.draft_tokens and self.draft is None:
            raise ValueError(
                f"draft_tokens is {self.draft_tokens}, but there is no draft model: give one, or set it to 0."
            )
        if self.tree is not None and self.tree.depth != self.draft_tokens:
            raise ValueError(
                f"A tree of depth {self.tree.depth} drafts that many tokens a path, but draft_tokens is "
                f"{self.draft_tokens}: set it to the depth."
            )
        if self.rejects and self.tree is not None and self.tree.total > self.tree.fixed:
            raise ValueError(
                f"Rejection sampling settles a tree's nodes beforehand: of depth {self.tree.depth} and top_k "
                f"{self.tree.top_k} it verifies at most {self.tree.fixed}, not {self.tree.total}."
            )
        if self.record_signals and not self.has_signals:
            raise ValueError("record_signals needs a draft model with signal heads: give one, or leave it off.")
        if self.buffer_length < 2:
            raise ValueError(
                f"buffer_length must be at least 2 (a prompt token and an answer), not {self.buffer_length}."
            )
        if set(self.stop_ids) & set(self.end_think_ids):
            raise ValueError(f"stop_ids {self.stop_ids} and end_think_ids {self.end_think_ids} share an id.")
        simulated = self.simulate_accept_length
        if simulated is not None and not 1 <= simulated <= self.draft_tokens + 1:
            raise ValueError(
                f"simulate_accept_length counts the bonus token: with {self.draft_tokens} drafts it is between 1 and "
                f"{self.draft_tokens + 1}, not {simulated}."
            )

    @property
    def has_signals(self) -> bool:
        return self.draft is not None and self.draft.signals != "none"

    @property
    def rejects(self) -> bool:
        """Whether drafts are sampled, and accepted by rejection sampling."""
        return self.draft_tokens > 0 and self.rule == "rejection"

    @property
    def drafted(self) -> int:
        """Drafts that a step verifies: K of a chain, all of a tree."""
        return self.tree.total if self.tree else self.draft_tokens

    @property
    def capacity(self) -> int:
        """Positions a row of a cache for a full buffer: more than the buffer has, as a step may write drafts past its end."""
        return self.prefixes[-1]

    @property
    def ragged(self) -> bool:
        """All attention of a step follows the rows' own lengths (`ragged_attention`)."""
        return all(config.attention == "pallas" for config in (self.target, self.draft) if config is not None)

    def capacities_for(self, live: int) -> tuple[int, int]:
        """Capacities of the target's cache and of the draft's while `live` are read: on CPU a cache is as long as what is read
        of it, where steps are of one token and SPARE more."""
        if self.ragged:
            return self.capacity, self.capacity
        whole = (live if on_cpu() else self.capacity) + SPARE
        return (live if self.draft_tokens and on_cpu() else whole, whole)

    def prefixes_after(self, width: int) -> tuple[int, ...]:
        """The live prefixes that hold prompts padded to `width` and a step after them."""
        return tuple(size for size in self.prefixes if size >= width + self.reach)

    def prefix_for(self, length: int) -> int:
        """The least live prefix for a step of a row with `length` tokens."""
        return next((size for size in self.prefixes if size >= length + self.reach), self.prefixes[-1])

    def prompt_capacity(self, length: int) -> int:
        """The least capacity of caches for a prompt of `length` tokens and a step after it."""
        return next(
            (size for size in self.prompt_capacities if size >= length + self.reach), self.prompt_capacities[-1]
        )

    @property
    def reach(self) -> int:
        """Positions past a row's length that one step may touch: the verified and a root, then the draft's own steps."""
        own = self.tree.draft_positions if self.tree else self.draft_tokens
        return max(self.drafted + 1, self.draft_tokens + 1 + own) + 1

    @property
    def prefixes(self) -> tuple[int, ...]:
        """The live prefixes in use, ascending; the last holds a full buffer and the drafts that reach past it."""
        return self.prompt_capacities[-1:] if self.ragged else self.prompt_capacities

    @property
    def prompt_capacities(self) -> tuple[int, ...]:
        """Capacities of caches for a prompt, which no kernel reads: as the live prefixes would be without one."""
        return prefixes_of(self.live_prefixes, self.buffer_length + self.reach, LANES if self.ragged else 16)


def prefixes_of(chosen: tuple[int, ...], longest: int, multiple: int = 16) -> tuple[int, ...]:
    """The chosen live prefixes (none: 256 and doubling) below `longest`, then it, rounded up to a multiple."""
    whole = -(-longest // multiple) * multiple
    chosen = chosen or tuple(2**power for power in range(8, 31))
    return (*sorted(size for size in set(chosen) if size < whole), whole)


@flax.struct.dataclass
class DecodeParams:
    """The weights. draft and d2t (absolute target id of each draft-vocabulary id) are None where there is no draft.

    closing: where the model's own `</think>` is looked for in text (`closing.closing_table`); None: as end_think_ids.
    """

    target: Any
    draft: Any = None
    d2t: Int[Array, " W"] | None = None
    closing: Int8[Array, "M V"] | None = None

    @property
    def draft_embedding(self) -> Float[Array, "V E"]:
        """The embedding table that the draft reads: its own, or the target's."""
        return (self.draft if "embed" in self.draft else self.target)["embed"]["embedding"]


@flax.struct.dataclass
class LoopContext:
    """What every iteration shares: the compiled choices, the weights, the exit policy and the boundary table.

    policy, boundaries: as `exits.protocols` says.
    head: a tied table as [D, V], laid out once before the loop where that pays (see `head_of`), else None.
    """

    spec: DecodeSpec = flax.struct.field(pytree_node=False)
    params: DecodeParams
    policy: Any
    boundaries: Any
    head: Float[Array, "D V"] | None = None

    @property
    def reads_signals(self) -> bool:
        return bool(self.policy.signals) or self.spec.record_signals

    @property
    def tries(self) -> bool:
        """The policy's exits are trials, which it may take back."""
        return self.policy.on_trial

    @property
    def late_signals(self) -> bool:
        """Signals sit on the draft layer's output, where token t + 1's come out of pair (t, t + 1)."""
        return self.reads_signals and self.spec.draft.signals == "draft"

    @property
    def runs_draft(self) -> bool:
        return self.spec.draft_tokens > 0 or self.late_signals
