"""The kinds of drafts: one table, and what any kind is made with."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from specexit_jax.models.cache import Cache, init_cache
from specexit_jax.models.config import DraftConfig, TargetConfig, draft_config
from specexit_jax.models.draft_layer import Draft
from specexit_jax.models.eagle3 import Eagle3
from specexit_jax.models.mtp import Mtp
from specexit_jax.models.mtp_config import mtp_config


class Kind(NamedTuple):
    """module: what computes. files: the module of models/checkpoints that reads and writes folders (see its drafts.py). signals:
    where they are placed by default. make: (target, family, sizes, …) to a fresh draft's config; `family` is for kinds that
    have some."""

    module: type[Draft]
    files: str
    signals: str
    make: Callable[..., DraftConfig]


KINDS = {  # folders are offered in this order
    "mtp": Kind(Mtp, "hf_mtp", "draft", mtp_config),
    "eagle3": Kind(Eagle3, "hf_draft", "fc", lambda target, family, *sizes: draft_config(target, *sizes)),
}


def make_config(
    kind: str,
    target: TargetConfig,
    family: str,
    intermediate_size: int,
    draft_vocab_size: int,
    signals: str,
    sliding_window: int,
    signal_names: tuple[str, ...],
) -> DraftConfig:
    """The config of a fresh draft of this kind for a target. Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"The kind of a draft is {kind!r}; use one of {', '.join(KINDS)}.")
    sizes = intermediate_size, draft_vocab_size, signals, sliding_window, signal_names
    return KINDS[kind].make(target, family, *sizes)


def signals_removed(config: DraftConfig, params: dict) -> tuple[DraftConfig, dict]:
    """The draft with its signal outputs removed."""
    kept = {name: value for name, value in params.items() if name != "signal_head"}
    if config.signals == "fc":
        kept["fc"] = kept["fc"][:, : config.hidden_size]
    return dataclasses.replace(config, signals="none"), kept


def draft_of(config: DraftConfig) -> Draft:
    """The module of this draft."""
    return KINDS[config.kind].module(config)


def init_draft_cache(config: DraftConfig, batch: int, capacity: int) -> Cache:
    """An empty cache for this draft's one layer."""
    return init_cache(1, config.num_kv_heads, config.head_dim, batch, capacity, config.dtype)


def init_draft(config: DraftConfig, key: jax.Array) -> dict:
    """Fresh float32 parameters."""

    def everything(draft: Draft, features, embedded, positions):
        hidden, _ = draft.fuse(features)
        return draft(embedded, hidden, positions)

    features = jnp.zeros((1, 1, config.feature_size), config.dtype)
    embedded = jnp.zeros((1, 1, config.hidden_size), config.dtype)
    positions = jnp.zeros((1, 1), jnp.int32)
    return nn.init(everything, draft_of(config))(key, features, embedded, positions)["params"]
