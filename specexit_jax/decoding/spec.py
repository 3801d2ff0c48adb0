"""What the decoding loop is compiled for (DecodeSpec), and what every iteration shares (LoopContext)."""

import dataclasses
from typing import Any

import flax.struct
from jaxtyping import Array, Float, Int, Int8

from specexit_jax.backend import on_cpu, platform
from specexit_jax.decoding.sampling import RULES
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.readings import READINGS
from specexit_jax.exits.score import recorded
from specexit_jax.models.cache import SPARE
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.ragged_attention import LANES


@dataclasses.dataclass(frozen=True)
class DecodeSpec:
    """All static settings of the loop: two calls with equal specs and shapes share one compilation.

    target, draft: the models' configs; draft None: no draft model. buffer_length: the most tokens of a row, prompt included.
    stop_ids: tokens that end an answer. end_think_ids: the ids of `</think>`; () for a model that does not think, on which no
    policy can exit. draft_tokens: K, the most drafts that a step can accept; with 0 a step decodes one token, and a draft model
    is needed only for signals (`probe`). rule: see `Sampling.rule`; all other sampling settings are arrays (`SamplingRows`).
    live_prefixes: the live prefixes that attention is compiled for, one copy of the loop each; (): `DEFAULT_PREFIXES`. With
    the ragged kernel there is one, the whole buffer. record_signals: keep the signals of every generated token, and the exit score.
    tree: verify a tree of depth K instead of a chain. simulate_accept_length: the mean number of tokens that a step yields
    whatever the target samples, for timing without a trained draft. own_rules: each row has thresholds and a thinking budget of
    its own (`rows.OwnRules`), as arrays. logprobs: keep the log-probability of every generated token, and those of so many most
    likely ones (0: keep none). Raises ValueError on settings that contradict each other.
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
    own_rules: bool = False
    logprobs: int = 0

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, but it is {self.rule!r}.")
        if self.draft_tokens < 0:
            raise ValueError(f"draft_tokens must be 0 or more, but it is {self.draft_tokens}.")
        if self.draft is not None and self.draft.feature_size != self.target.feature_size:
            raise ValueError(
                f"The draft reads {self.draft.feature_size} features of a token, but the target gives "
                f"{self.target.feature_size}: take the target that `DraftConfig.reading` gives."
            )
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
                f"Rejection sampling fixes the number of nodes at each depth: a tree of depth {self.tree.depth} and top_k "
                f"{self.tree.top_k} has at most {self.tree.fixed} nodes, not {self.tree.total}; lower its total."
            )
        if self.record_signals and not self.has_signals:
            raise ValueError("record_signals needs a draft model with signal heads: give one, or set it to false.")
        if not 0 <= self.logprobs <= self.target.vocab_size:
            raise ValueError(
                f"logprobs is a number of tokens from 0 to the vocabulary's {self.target.vocab_size}, not {self.logprobs}."
            )
        if self.buffer_length < 2:
            raise ValueError(
                f"buffer_length must be at least 2 (one prompt token and one generated token), not {self.buffer_length}."
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
        """Whether drafts are sampled and accepted by rejection sampling."""
        return self.draft_tokens > 0 and self.rule == "rejection"

    @property
    def drafted(self) -> int:
        """Number of drafts that a step verifies: K for a chain, all nodes but the root for a tree."""
        return self.tree.total if self.tree else self.draft_tokens

    @property
    def capacity(self) -> int:
        """Capacity of caches for a full buffer; larger than the buffer, because a step may write drafts past its end."""
        return self.prefixes[-1]

    @property
    def ragged(self) -> bool:
        """Whether caches hold a full buffer, of which `ragged_attention` reads each row's own length. `split_attention`, for GPUs,
        does so too, and yet caches are as long as the live prefix there: memory is short before time is."""
        return platform() != "gpu" and all(
            config.attention == "pallas" for config in (self.target, self.draft) if config is not None
        )

    def capacities_for(self, live: int) -> tuple[int, int]:
        """Capacities of the target's cache and of the draft's for the live prefix `live`.

        A cache is as long as its live prefix; on CPU it is SPARE longer where steps are of one token. With the ragged kernel it
        holds a full buffer.
        """
        if self.ragged:
            return self.capacity, self.capacity
        if not on_cpu():
            return live, live
        return (live if self.draft_tokens else live + SPARE, live + SPARE)

    def prefixes_after(self, width: int) -> tuple[int, ...]:
        """The live prefixes that fit prompts padded to `width` and one step after them, ascending."""
        return tuple(size for size in self.prefixes if size >= width + self.reach)

    def prefix_for(self, length: int) -> int:
        """The least live prefix that fits one step of a row with `length` tokens."""
        return next((size for size in self.prefixes if size >= length + self.reach), self.prefixes[-1])

    def prompt_capacity(self, length: int) -> int:
        """The least capacity of `prompt_capacities` that fits a prompt of `length` tokens and one step after it."""
        return next(
            (size for size in self.prompt_capacities if size >= length + self.reach), self.prompt_capacities[-1]
        )

    @property
    def reach(self) -> int:
        """The most positions past a row's length that one step writes: the root and its drafts, or the draft's own steps."""
        own = self.tree.draft_positions if self.tree else self.draft_tokens
        return max(self.drafted + 1, self.draft_tokens + 1 + own) + 1

    @property
    def prefixes(self) -> tuple[int, ...]:
        """The live prefixes in use, ascending. The last fits a full buffer and one step after it."""
        return self.prompt_capacities[-1:] if self.ragged else self.prompt_capacities

    @property
    def prompt_capacities(self) -> tuple[int, ...]:
        """The capacities of caches for a prefill: the live prefixes, which prefill reads without the ragged kernel.

        Off CPU all are multiples of LANES: products of other lengths make the compiler copy the cache into a padded one.
        """
        return prefixes_of(
            self.live_prefixes, self.buffer_length + self.reach, 16 if on_cpu() and not self.ragged else LANES
        )


# Live prefixes by the multiple that lengths have. Off CPU the short ones are left out: each is a loop to compile, weights are
# most of what a step reads at such lengths, and few tokens of an answer have them.
DEFAULT_PREFIXES = {16: {2**power for power in range(8, 31)}, LANES: {1024, *(2**power for power in range(12, 31))}}


def prefixes_of(chosen: tuple[int, ...], longest: int, multiple: int = 16) -> tuple[int, ...]:
    """The chosen live prefixes below `longest` ((): `DEFAULT_PREFIXES`), then `longest` itself, all rounded up to a multiple.

    Of the defaults, one that is nearly as long as the whole buffer would save less than its compilation takes: it is left out.
    """
    whole = _rounded(longest, multiple)
    sizes = {_rounded(size, multiple) for size in chosen} or DEFAULT_PREFIXES[multiple]
    most = whole if chosen else whole - whole // 8
    return (*sorted(size for size in sizes if size < most), whole)


def _rounded(size: int, multiple: int) -> int:
    """The least multiple that is not below `size`. Off CPU, long ones are multiples of 1/64 of their power of two: a product with
    the values of one row is split over positions, and parts of other lengths make the compiler pad a copy of them."""
    if multiple == LANES:
        multiple = max(multiple, (1 << size.bit_length()) >> 7)
    return -(-size // multiple) * multiple


@flax.struct.dataclass
class DecodeParams:
    """The weights and the tables that depend on the tokenizer.

    draft, d2t: None where there is no draft; d2t holds the target id of each draft-vocabulary id. closing: the table of
    `closing.closing_table`, where the model's own `</think>` is found in its text; None: it is found by end_think_ids.
    """

    target: Any
    draft: Any = None
    d2t: Int[Array, " W"] | None = None
    closing: Int8[Array, "M V"] | None = None

    @property
    def draft_embedding(self) -> Float[Array, "V E"]:
        """The draft's embedding table: its own, or the target's where it has none."""
        return (self.draft if "embed" in self.draft else self.target)["embed"]["embedding"]


@flax.struct.dataclass
class LoopContext:
    """What all iterations share: static settings, weights, exit policy and boundary table.

    policy, boundaries: see `exits.protocols`. head: the transpose of a tied embedding table (`head_of`), or None.
    """

    spec: DecodeSpec = flax.struct.field(pytree_node=False)
    params: DecodeParams
    policy: Any
    boundaries: Any
    head: Float[Array, "D V"] | None = None

    @property
    def target_head(self) -> Float[Array, "D V"]:
        """The target's head, for a draft that has none of its own."""
        if self.head is not None:
            return self.head
        if self.spec.target.tie_embeddings:
            return self.params.target["embed"]["embedding"].T
        return self.params.target["lm_head"]

    @property
    def reads_signals(self) -> bool:
        return bool(self.policy.reads) or self.spec.record_signals

    @property
    def takes_readings(self) -> bool:
        """Whether the policy sees the target's readings of the tokens (`exits.readings`)."""
        return any(name in READINGS for name in self.policy.reads)

    @property
    def recorded(self) -> tuple[str, ...]:
        """The names of the signals that record_signals keeps."""
        return recorded(self.spec.draft.signal_names, self.policy.signals)

    @property
    def tries(self) -> bool:
        """Whether the policy's exits are trials, which may fail."""
        return self.policy.on_trial

    @property
    def late_signals(self) -> bool:
        """Whether signals are read from the draft layer's output; the pair (t, t + 1) then yields those of token t + 1."""
        return self.reads_signals and self.spec.draft.signals == "draft"

    @property
    def runs_draft(self) -> bool:
        return self.spec.draft_tokens > 0 or self.late_signals
