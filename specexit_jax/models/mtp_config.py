"""Config of an MTP draft: its sizes, and every point on which families or engines differ, as a field."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from specexit_jax.models.config import PAPER_SIGNALS, READS, DraftConfig, TargetConfig, sizes_of

ORDERS = ("hidden_first", "embedding_first")

# What the engines compute for each family (vLLM: mimo_mtp.py, deepseek_mtp.py, qwen3_next_mtp.py, qwen3_5_mtp.py; SGLang:
# mimo_mtp.py, deepseek_nextn.py), read in November 2026; the tests write these equations out.
FAMILIES: dict[str, dict[str, Any]] = {
    "mimo": {
        "reads": "residual",
        "order": "hidden_first",
        "feeds_back": "normed",
        "zeroes_first": True,
        "qkv_bias": True,
    },
    "deepseek_v3": {
        "reads": "normed",
        "order": "embedding_first",
        "feeds_back": "residual",
        "zeroes_first": True,
    },
    "qwen3_next": {
        "reads": "normed",
        "order": "embedding_first",
        "feeds_back": "normed",
        "zeroes_first": False,
        "qk_norm": True,
        "output_gate": True,
    },
}
FAMILIES["qwen3_5"] = FAMILIES["qwen3_next"]


@dataclass(frozen=True)
class MtpConfig(DraftConfig):
    """An MTP layer. The fields from `family` on are its own; `of_family` gives each its family's value.

    family: whose names its files have, and whose values are the defaults: one of FAMILIES.
    reads: h_t before ("residual") or after ("normed") the target's final norm. Before in vLLM's model runner of MiMo, after in
    SGLang's, which hands the normed states to any draft [inferred: acceptance decides]; after it for the others.
    order: the halves of the projection's input. [hidden, embedding] for MiMo alone (its model code and both engines).
    feeds_back: what the next step reads as h: the output before ("residual": DeepSeek, whose norm belongs to `shared_head`) or
    after ("normed": MiMo, whose layer returns its `final_layernorm`; Qwen3-Next [inferred from vLLM]) the final norm.
    zeroes_first: the embedding is 0 in the pair of position 0 (vLLM, for MiMo and DeepSeek).
    own_head: a head of its own; else the target's, which is stored once. Files of DeepSeek's form hold one (`shared_head.head`),
    which is kept only where it differs from the target's.
    qkv_bias, qk_norm, output_gate: of the layer's attention, as the target's: biases for MiMo (Qwen2's layer), norms and a gate
    σ(g) on the heads' outputs for Qwen3-Next and 3.5.
    rotary_dim: leading columns of a head that RoPE turns (Qwen3-Next: a quarter); None: all.
    target_layers: of the target; DeepSeek's files name the MTP layer as the one after them.
    """

    kind = "mtp"
    scales_features = False  # a norm is the first that reads them
    signals: str = "draft"
    family: str = "mimo"
    reads: str = "residual"
    order: str = "hidden_first"
    feeds_back: str = "normed"
    zeroes_first: bool = True
    own_head: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    output_gate: bool = False
    rotary_dim: int | None = None
    target_layers: int = 0

    def __post_init__(self):
        super().__post_init__()
        for name, value, known in (
            ("family", self.family, tuple(FAMILIES)),
            ("reads", self.reads, READS),
            ("order", self.order, ORDERS),
            ("feeds_back", self.feeds_back, READS),
        ):
            if value not in known:
                raise ValueError(f"An MTP draft's {name} is {value!r}; use one of {known}.")
        if self.signals == "fc":
            raise ValueError("An MTP draft has no `fc` to place signals at: use 'draft' or 'none'.")
        if self.hidden_size != self.target_hidden_size:
            raise ValueError(
                f"An MTP draft is as wide as its target, {self.target_hidden_size}, not {self.hidden_size}: it projects both."
            )
        if self.draft_vocab_size != self.vocab_size and not self.own_head:
            raise ValueError(
                f"An MTP draft whose head is the target's has its vocabulary of {self.vocab_size} tokens, not "
                f"{self.draft_vocab_size}."
            )
        if self.rotary_dim is not None and (self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim):
            raise ValueError(f"RoPE turns an even number of a head's {self.head_dim} columns, not {self.rotary_dim}.")

    @property
    def feature_size(self) -> int:
        return self.target_hidden_size

    @property
    def attention_width(self) -> int:
        return self.hidden_size

    @property
    def fuse_weights(self) -> int:
        return 0

    @property
    def entry_weights(self) -> int:
        gate = self.num_heads * self.head_dim * self.hidden_size if self.output_gate else 0
        return 2 * self.hidden_size**2 + gate

    def capturing(self, layers: tuple[int, int, int]) -> "MtpConfig":
        return self  # `reads` says it

    def reading(self, target: TargetConfig) -> TargetConfig:
        return dataclasses.replace(target, capture=self.reads)


def mtp_config(
    target: TargetConfig,
    family: str,
    intermediate_size: int | None = None,
    draft_vocab_size: int | None = None,
    signals: str = "draft",
    sliding_window: int = 0,
    signal_names: tuple[str, ...] = PAPER_SIGNALS,
) -> MtpConfig:
    """A layer of the target's own architecture and sizes, with the values of `family`, and the target's head.

    intermediate_size: None: the target's. draft_vocab_size: not used, since the head is the target's.
    """
    if family not in FAMILIES:
        raise ValueError(f"The family of an MTP draft is {family!r}; use one of {tuple(FAMILIES)}.")
    own = {"qkv_bias": target.qkv_bias, "qk_norm": target.qk_norm}
    return MtpConfig(
        **sizes_of(target),
        intermediate_size=intermediate_size or target.intermediate_size,
        draft_vocab_size=target.vocab_size,
        signals=signals,
        sliding_window=sliding_window,
        signal_names=signal_names,
        family=family,
        target_layers=target.num_layers,
        **FAMILIES[family] | own,
    )
