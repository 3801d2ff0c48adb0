"""Configs of target and draft: their sizes and switches."""

import dataclasses
from dataclasses import dataclass
from typing import Any

ARCHITECTURES = ("llama", "qwen2", "qwen3", "mimo")
SIGNAL_PLACEMENTS = ("fc", "draft", "none")
PAPER_SIGNALS = ("confidence", "progress", "remain")  # the rows of a draft that does not name its signals
ATTENTIONS = ("xla", "pallas")
ROW_ATTENTIONS = ("auto", "plain", "fused")
READS = ("residual", "normed")  # the last layer's output, before and after the final norm


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretching of the long RoPE wavelengths (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True)
class TargetConfig:
    """A Llama 3, Qwen2, Qwen3 or MiMo (Qwen2 with an MTP layer) decoder. `dtype` is the compute dtype; logits and softmax are
    float32. `attention` is how a few tokens read a cache: by plain XLA, or by a kernel (`ragged_attention` on TPUs,
    `split_attention` on GPUs). `row_attention` is how whole rows attend to themselves without one (see
    models/row_attention.py). `capture` is what its features are: the inputs of three layers, concatenated (None: EAGLE-3's own
    choice), or one of READS."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    qk_norm: bool = False
    qkv_bias: bool = False
    tie_embeddings: bool = False
    max_position: int = 4096
    dtype: str = "float32"
    capture: tuple[int, int, int] | str | None = None
    attention: str = "xla"
    row_attention: str = "auto"

    def __post_init__(self):
        if isinstance(self.capture, str) and self.capture not in READS:
            raise ValueError(f"A target's features are inputs of layers or one of {READS}, not {self.capture!r}.")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"Target architecture {self.architecture!r} is unknown; use one of {ARCHITECTURES}.")
        _check_attention("Target", self.attention, self.row_attention)
        _check_heads("Target", self.num_heads, self.num_kv_heads, self.head_dim)

    @property
    def feature_size(self) -> int:
        """A: the numbers of a token's features."""
        return self.hidden_size * (1 if isinstance(self.capture, str) else 3)

    @property
    def capture_layers(self) -> tuple[int, ...]:
        """Layers whose INPUT is a feature, by EAGLE's count: the outputs one layer lower (docs/method.md §1). None where the
        features are one of READS."""
        if isinstance(self.capture, str):
            return ()
        if self.capture is None:
            # A model of fewer than 5 layers captures the inputs of layers that exist.
            layers = (2, self.num_layers // 2, self.num_layers - 3)
            return tuple(min(max(layer, 0), self.num_layers - 1) for layer in layers)
        layers = self.capture
        if not 0 <= min(layers) <= max(layers) < self.num_layers:
            raise ValueError(f"Captured layers {layers} are not among the target's {self.num_layers}; set `capture`.")
        return layers


@dataclass(frozen=True)
class DraftConfig:
    """What every kind of draft has, and with it an EAGLE-3 layer: signal heads at rows of `fc`, at the layer's output (`draft`),
    or `none`. Another kind is a subclass with its own `kind` (models/draft.py has the table).

    signal_names: what the rows of the heads are, in order (names of `exits.signals`).

    sliding_window: a pair sees only the last so many verified pairs, itself included (0: all of them). A draft's own
    steps always see one another, and the verified pairs that the last verified pair sees.
    """

    # Of the kind: not fields, but a subclass may make fields of them.
    kind = "eagle3"
    own_head = True  # else it reads the target's
    scales_features = True  # trained on features of unit scale, which `fc` then has folded into it
    rotary_dim = None  # leading columns of a head that RoPE turns; None: all

    hidden_size: int
    target_hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    draft_vocab_size: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    signals: str = "fc"
    norm_before_residual: bool = False
    max_position: int = 4096
    dtype: str = "float32"
    capture: tuple[int, int, int] | None = None  # the target layers it was trained on (their inputs), where recorded
    own_embedding: bool = False  # has its own embedding table; else it reads the target's
    attention: str = "xla"  # as the target's
    row_attention: str = "auto"  # as the target's
    sliding_window: int = 0
    signal_names: tuple[str, ...] = PAPER_SIGNALS

    def __post_init__(self):
        if self.signals not in SIGNAL_PLACEMENTS:
            raise ValueError(f"Signal placement {self.signals!r} is unknown; use one of {SIGNAL_PLACEMENTS}.")
        if not self.signal_names or len(set(self.signal_names)) < len(self.signal_names):
            raise ValueError(
                f"The signals of a draft are named once each, and at least one is, not {self.signal_names}."
            )
        if self.hidden_size != self.target_hidden_size and not self.own_embedding:
            # The layer's input is [embedding, hidden] of width 2E.
            raise ValueError(
                f"Draft hidden size {self.hidden_size} must equal the target's {self.target_hidden_size}: "
                "the draft has no embedding table of its own and reads the target's."
            )
        if self.sliding_window < 0:
            raise ValueError(f"Draft sliding window must be 0 (none) or a number of tokens, not {self.sliding_window}.")
        _check_attention("Draft", self.attention, self.row_attention)
        _check_heads("Draft", self.num_heads, self.num_kv_heads, self.head_dim)

    @property
    def feature_size(self) -> int:
        """A: the numbers that it reads of the target for each token."""
        return 3 * self.target_hidden_size

    @property
    def attention_width(self) -> int:
        """The columns of its attention's input."""
        return 2 * self.hidden_size

    @property
    def fuse_weights(self) -> int:
        """Numbers of the weights that are applied once a token, before the first step."""
        return self.feature_size * self.fc_rows

    @property
    def entry_weights(self) -> int:
        """Numbers of the weights of a step beside its layer's plain projections and feed-forward, and its head."""
        return 0

    def reading(self, target: TargetConfig) -> TargetConfig:
        """The target, giving the features that this draft reads."""
        return dataclasses.replace(target, capture=self.capture) if isinstance(target.capture, str) else target

    def capturing(self, layers: tuple[int, int, int]) -> "DraftConfig":
        """With a record of the target layers (their inputs) that it was trained on."""
        return dataclasses.replace(self, capture=layers)

    @property
    def signal_rows(self) -> int:
        """Rows of the signal heads; 0 where there are none."""
        return len(self.signal_names) * (self.signals != "none")

    @property
    def fc_rows(self) -> int:
        """Outputs of `fc`: the fused features, and the signals where they are placed there."""
        return self.hidden_size + self.signal_rows * (self.signals == "fc")


def sizes_of(target: TargetConfig) -> dict[str, Any]:
    """What any draft takes over from its target: width, heads, vocabulary, norms, positions, how it computes."""
    same = ("hidden_size", "num_heads", "num_kv_heads", "head_dim", "vocab_size", "rms_norm_eps", "max_position")
    same += ("rope_theta", "rope_scaling", "dtype", "attention", "row_attention")
    return {name: getattr(target, name) for name in same} | {"target_hidden_size": target.hidden_size}


def draft_config(
    target: TargetConfig,
    intermediate_size: int,
    draft_vocab_size: int,
    signals: str,
    sliding_window: int = 0,
    signal_names: tuple[str, ...] = PAPER_SIGNALS,
) -> DraftConfig:
    """An EAGLE-3 layer of the target's width and heads."""
    return DraftConfig(
        **sizes_of(target),
        intermediate_size=intermediate_size,
        draft_vocab_size=draft_vocab_size,
        signals=signals,
        sliding_window=sliding_window,
        signal_names=signal_names,
    )


def check_pair(draft: DraftConfig, target: TargetConfig) -> None:
    """Raises ValueError if a draft was made for another target. A wrong pairing would run, with drafts that are never
    accepted."""
    pairs = [
        ("hidden size", draft.target_hidden_size, target.hidden_size),
        ("vocabulary", draft.vocab_size, target.vocab_size),
    ]
    if draft.capture is not None:
        pairs.append(("captured layers", draft.capture, target.capture_layers))
    for what, ours, theirs in pairs:
        if ours != theirs:
            raise ValueError(f"The draft was made for a target of {what} {ours}, but this one has {theirs}.")


def _check_attention(name: str, attention: str, row_attention: str) -> None:
    if attention not in ATTENTIONS:
        raise ValueError(f"{name} attention {attention!r} is unknown; use one of {ATTENTIONS}.")
    if row_attention not in ROW_ATTENTIONS:
        raise ValueError(f"{name} row attention {row_attention!r} is unknown; use one of {ROW_ATTENTIONS}.")


def _check_heads(name: str, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
    if num_heads % num_kv_heads or head_dim % 2:
        raise ValueError(
            f"{name}: {num_heads} query heads must be a multiple of {num_kv_heads} key/value heads, "
            f"and the head size {head_dim} even."
        )
