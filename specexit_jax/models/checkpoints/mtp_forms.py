"""How each family of checkpoints names and lays out its MTP layer, where that differs from ours.

Names as read in the engines' loaders and in published index files (docs/mtp.md). Three differences of layout: norms stored as
w for a factor 1 + w; an output gate in the rows of q_proj, head by head after the head's query; and RoPE over the leading
columns of a head alone. We keep whole factors, a gate of its own, and turn whole heads, those columns at frequency 0 that are
not turned: for that, columns of queries and keys change places (products of the two do not depend on their order).
"""

import dataclasses
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from specexit_jax.models.mtp_config import MtpConfig

ONE_PLUS = ("qwen3_next", "qwen3_5")
_PROJECTIONS = {
    r"(model\.mtp_layers\.\d+)\.input_proj\.weight": "mimo",
    r"(model\.layers\.\d+)\.eh_proj\.weight": "deepseek_v3",
    r"mtp\.fc\.weight": "qwen3_next",
}


class Names(NamedTuple):
    """root: what all names of the layer begin with; layer: of the decoder layer; the others: of what is outside it."""

    root: str
    layer: str
    hidden_norm: str
    token_norm: str
    projection: str
    norm: str
    head: str = "lm_head.weight"
    embedding: str = "model.embed_tokens.weight"


def names_of(config: MtpConfig) -> Names:
    if config.family == "mimo":
        root = "model.mtp_layers.0"
        inside = (f"{root}.{name}" for name in ("hidden_layernorm", "token_layernorm", "input_proj", "final_layernorm"))
        return Names(root, root, *inside)
    if config.family == "deepseek_v3":
        root = f"model.layers.{config.target_layers}"
        inside = (f"{root}.{name}" for name in ("hnorm", "enorm", "eh_proj", "shared_head.norm"))
        return Names(root, root, *inside, f"{root}.shared_head.head.weight", f"{root}.embed_tokens.weight")
    inside = (f"mtp.{name}" for name in ("pre_fc_norm_hidden", "pre_fc_norm_embedding", "fc", "norm"))
    return Names("mtp", "mtp.layers.0", *inside)


def layer_of(names: set[str]) -> tuple[str, str] | None:
    """(family, prefix of the first decoder layer's names) by the names of a folder's tensors; None where it has no MTP layer."""
    for name in sorted(names, key=lambda name: (len(name), name)):
        for pattern, family in _PROJECTIONS.items():
            if found := re.fullmatch(pattern, name):
                return family, "mtp.layers.0" if family == "qwen3_next" else found.group(1)
    return None


def layers_in(names: set[str]) -> int:
    """How many MTP layers a folder with these tensors has."""
    return sum(any(re.fullmatch(pattern, name) for pattern in _PROJECTIONS) for name in names)


def extra_tensors(names: set[str], layers: int) -> set[str]:
    """The tensors of MTP layers among those of a checkpoint whose target has so many layers."""
    after = {f"{name.removesuffix('eh_proj.weight')}" for name in names if name.endswith(".eh_proj.weight")}
    beyond = tuple(root for root in after if int(root.split(".")[-2]) >= layers)
    return {name for name in names if name.startswith(("mtp.", "model.mtp_layers.", *beyond))}


@dataclasses.dataclass(frozen=True)
class Form:
    """The tensors of a config's files, in ours and in the family's layout."""

    config: MtpConfig

    @property
    def names(self) -> Names:
        return names_of(self.config)

    def shapes(self, ours: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The shapes in the file, of ours by name."""
        found = dict(ours)
        if self.config.output_gate:
            rows, width = found.pop(self._gate)
            found[self._query] = (2 * rows, width)
        return found

    def read(self, name: str, tensor: Callable[[str], np.ndarray]) -> np.ndarray:
        """A tensor in our layout. tensor: reads one of the file's."""
        if self.config.output_gate and name in (self._query, self._gate):
            value = self._apart(tensor(self._query))[:, int(name == self._gate)].reshape(-1, self.config.hidden_size)
        else:
            value = tensor(name)
        if self._is_one_plus(name):
            value = (1 + value.astype(np.float32)).astype(np.promote_types(value.dtype, np.float32))
        return self._reordered(name, value, self._turned_order())

    def written(self, ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The file's tensors."""
        found = {}
        for name, value in ours.items():
            value = self._reordered(name, value, np.argsort(self._turned_order()))
            if self._is_one_plus(name):
                value = (value.astype(np.float32) - 1).astype(value.dtype)
            found[name] = value
        if self.config.output_gate:
            size = self.config.head_dim
            both = [found.pop(name).reshape(-1, 1, size, self.config.hidden_size) for name in (self._query, self._gate)]
            found[self._query] = np.concatenate(both, axis=1).reshape(-1, self.config.hidden_size)
        return found

    @property
    def _query(self) -> str:
        return f"{self.names.layer}.self_attn.q_proj.weight"

    @property
    def _gate(self) -> str:
        return f"{self.names.layer}.self_attn.q_gate.weight"

    def _apart(self, both: np.ndarray) -> np.ndarray:
        """[N, 2, H, D]: a head's query and its gate."""
        return both.reshape(self.config.num_heads, 2, self.config.head_dim, -1)

    def _is_one_plus(self, name: str) -> bool:
        return self.config.family in ONE_PLUS and "norm" in name

    def _turned_order(self) -> np.ndarray:
        """Which column of a file's head is each of ours: the turned ones first in either half of the head."""
        size, turned = self.config.head_dim, self.config.rotary_dim or self.config.head_dim
        half, part, rest = size // 2, turned // 2, np.arange(turned, size)
        kept = half - part
        return np.concatenate([np.arange(part), rest[:kept], np.arange(part, turned), rest[kept:]])

    def _reordered(self, name: str, value: np.ndarray, order: np.ndarray) -> np.ndarray:
        """A tensor of queries or keys with the columns of each head in this order; any other as it is."""
        if self.config.rotary_dim is None or not re.search(r"self_attn\.[qk]_(proj|norm)\.(weight|bias)$", name):
            return value
        heads = value.reshape(-1, self.config.head_dim, *value.shape[1:])
        return heads[:, order].reshape(value.shape)
