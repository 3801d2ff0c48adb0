"""The time that a device needs for what a stage does, by arithmetic over shapes: bytes over bandwidth, FLOPs over peak.

Decoding takes the longer of the two in every iteration. Both are divided by the share of the device's rate that programs
reach (`Rates`), which is an assumption until a run has measured it.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax.numpy as jnp

from specexit_jax.decoding.spec import DecodeSpec, prefixes_of
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.ragged_attention import LANES
from specexit_jax.sizing.plan_memory import Mesh, rows_a_device, target_bytes, token_cache
from specexit_jax.sizing.traffic import traffic

HOUR = 3600.0
_REACH = 9  # positions past a row's length that a step of three drafts writes (DecodeSpec.reach)


@dataclasses.dataclass(frozen=True)
class Rates:
    """Of one device: bytes and bfloat16 FLOPs a second, and the shares of them that programs reach; of_caches: of the bandwidth,
    where caches are read."""

    bandwidth: float
    peak: float
    of_bandwidth: float = 0.5
    of_peak: float = 0.4
    of_caches: float = 0.5

    def seconds(self, weights: float, flops: float, caches: float = 0.0) -> float:
        """Of reading so many bytes of weights and caches and computing so many FLOPs on one device, side by side."""
        moved = (weights / self.of_bandwidth + caches / self.of_caches) / self.bandwidth
        return max(moved, flops / (self.peak * self.of_peak))


class Pace(NamedTuple):
    """tokens: written a second by one process; seconds: of an iteration; limit: what takes the longest in it."""

    tokens: float
    seconds: float
    limit: str


def forward_flops(target: TargetConfig, tokens: float, seen: float, logits: bool = True) -> float:
    """FLOPs of a pass over `tokens` tokens that see `seen` tokens each on average."""
    weights = target_bytes(target) / jnp.dtype(target.dtype).itemsize
    tables = target.vocab_size * target.hidden_size * (1 if target.tie_embeddings else 2)
    heads = target.vocab_size * target.hidden_size * logits
    attention = 4 * target.num_layers * target.num_heads * target.head_dim * seen
    return tokens * (2 * (weights - tables + heads) + attention)


def live_prefix(length: float, buffer: int) -> int:
    """The positions that an iteration reads of every row, where the longest has `length` tokens: the next live prefix."""
    prefixes = prefixes_of((), buffer + _REACH, LANES)
    return next((size for size in prefixes if size >= length + _REACH), prefixes[-1])


def decoding_pace(
    target: TargetConfig,
    draft: DraftConfig | None,
    rows: int,
    live: float,
    tokens_a_step: float,
    rates: Rates,
    mesh: Mesh = (1, 1, 1),
    drafted: int = 3,
) -> Pace:
    """How fast one process decodes `rows` rows of `live` positions. draft: with chains of `drafted`; None: plain decoding, of
    which a step yields one token."""
    own, written = rows_a_device(rows, mesh), tokens_a_step if draft else 1.0
    drafted = drafted if draft else 0
    split = mesh[1] * mesh[2]  # a device reads its part of the weights; what fsdp gathers goes over links, not counted
    caches = own * live * (token_cache(target, mesh) + drafted * token_cache(draft or target, mesh))
    weights = _weights(target, draft, drafted, own) / split
    flops = own * forward_flops(target, drafted + 1, live) / mesh[2]
    seconds = rates.seconds(weights, flops, caches)
    limit = "FLOPs" if rates.seconds(0, flops) == seconds else "caches" if caches > weights else "weights"
    return Pace(rows * written / seconds, seconds, limit)


@functools.cache
def _weights(target: TargetConfig, draft: DraftConfig | None, drafted: int, rows: int) -> int:
    """The bytes of an iteration whose caches are empty."""
    return traffic(DecodeSpec(target, 2, (0,), (1,), draft, drafted), rows, 0).whole


def forcing_seconds(
    target: TargetConfig,
    rows: int,
    branches: int,
    length: float,
    boundaries: float,
    answer: float,
    rates: Rates,
    mesh: Mesh = (1, 1, 1),
) -> tuple[float, str]:
    """Seconds that one trace of `length` tokens takes, among `rows` at a time, and what limits it: its prefill, then `boundaries`
    answers of `answer` tokens, `branches` at a time, over the part of the trace before each (half of it on average)."""
    own = rows_a_device(rows, mesh)
    weights = target_bytes(target, mesh)
    caches = own * token_cache(target, mesh) * (0.6 * length + branches * answer / 2)  # a tenth of it is padding
    flops = own * branches * forward_flops(target, 1, length / 2) / mesh[2]
    steps = math.ceil(boundaries / branches) * answer
    step, prefill = (
        rates.seconds(weights, flops, caches),
        rates.seconds(0, forward_flops(target, length, length / 2)) / mesh[2],
    )
    forced, read = steps * step / rows, prefill / (rows / own)
    limit = "FLOPs" if read > forced or rates.seconds(0, flops) == step else "caches" if caches > weights else "weights"
    return forced + read, limit
