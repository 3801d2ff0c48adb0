"""Tiny MTP layers of each family, and their equations written out in numpy over the tensors of a file, by the file's names."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from random_params import random_params

from specexit_jax.models.config import TargetConfig
from specexit_jax.models.draft import init_draft
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.mtp_config import MtpConfig, mtp_config

V, D, F, N, K, H = 48, 16, 24, 4, 2, 8
TARGETS = {
    "mimo": TargetConfig("mimo", V, D, F, 1, N, K, H, qkv_bias=True),
    "deepseek_v3": TargetConfig("llama", V, D, F, 1, N, K, H),
    "qwen3_next": TargetConfig("qwen3", V, D, F, 1, N, K, H, qk_norm=True),
}
FAMILIES = tuple(TARGETS)


def config_of(family: str, **changes) -> MtpConfig:
    if family == "qwen3_next":
        changes = {"rotary_dim": 4} | changes
    return dataclasses.replace(mtp_config(TARGETS[family], family), **changes)


@functools.cache
def bundle_of(family: str, **changes) -> DraftBundle:
    config = config_of(family, **changes)
    return DraftBundle(config, random_params(init_draft, config, 3), jnp.arange(V, dtype=jnp.int32))


class Equations:
    """One family, over w, the tensors of its file in float64: `pair` after `pair`, each with the keys of those before it."""

    def __init__(self, family: str, tensors: dict[str, np.ndarray], eps: float = 1e-6):
        self.w = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
        self.family, self.eps, self.keys, self.values = family, eps, [], []
        self.layer = {
            "mimo": "model.mtp_layers.0",
            "deepseek_v3": "model.layers.1",
            "qwen3_next": "mtp.layers.0",
        }[family]

    def norm(self, x, name):
        scale = self.w[f"{name}.weight"] + (self.family == "qwen3_next")
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * scale

    def turned(self, x, position):
        """RoPE of heads [n, H]; for Qwen3-Next over the first 4 columns."""
        size = 4 if self.family == "qwen3_next" else H
        angle = position * 10000.0 ** (-np.arange(0, size, 2) / size)
        first, second, rest = x[:, : size // 2], x[:, size // 2 : size], x[:, size:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)

    def projected(self, x, name):
        name = f"{self.layer}.self_attn.{name}_proj"
        return (self.w[f"{name}.weight"] @ x + self.w.get(f"{name}.bias", 0)).reshape(-1, H)

    def pair(self, hidden, embedded, position):
        """(what the next step reads, the input of the head)."""
        if self.family == "mimo":
            embedded = embedded * (position != 0)
            halves = [
                self.norm(hidden, "model.mtp_layers.0.hidden_layernorm"),
                self.norm(embedded, "model.mtp_layers.0.token_layernorm"),
            ]
            x = self.w["model.mtp_layers.0.input_proj.weight"] @ np.concatenate(halves)
        elif self.family == "deepseek_v3":
            embedded = embedded * (position != 0)
            halves = [self.norm(embedded, f"{self.layer}.enorm"), self.norm(hidden, f"{self.layer}.hnorm")]
            x = self.w[f"{self.layer}.eh_proj.weight"] @ np.concatenate(halves)
        else:
            halves = [self.norm(embedded, "mtp.pre_fc_norm_embedding"), self.norm(hidden, "mtp.pre_fc_norm_hidden")]
            x = self.w["mtp.fc.weight"] @ np.concatenate(halves)
        y = self.after_layer(x, position)
        if self.family == "mimo":
            normed = self.norm(y, "model.mtp_layers.0.final_layernorm")
            return normed, normed
        if self.family == "deepseek_v3":
            return y, self.norm(y, f"{self.layer}.shared_head.norm")
        normed = self.norm(y, "mtp.norm")
        return normed, normed

    def after_layer(self, x, position):
        inner, gate = self.norm(x, f"{self.layer}.input_layernorm"), None
        q, k, v = (self.projected(inner, name) for name in "qkv")
        if self.family == "qwen3_next":  # a head's query and its gate lie one after the other
            q, gate = q.reshape(N, 2, H)[:, 0], q.reshape(N, 2, H)[:, 1]
            q, k = self.norm(q, f"{self.layer}.self_attn.q_norm"), self.norm(k, f"{self.layer}.self_attn.k_norm")
        self.keys.append(self.turned(k, position))
        self.values.append(v)
        keys, values = np.stack(self.keys), np.stack(self.values)
        mixed = []
        for head, query in enumerate(self.turned(q, position)):
            scores = keys[:, head // (N // K)] @ query / np.sqrt(H)
            weights = np.exp(scores - scores.max())
            mixed.append(weights / weights.sum() @ values[:, head // (N // K)])
        mixed = np.stack(mixed)
        if gate is not None:
            mixed = mixed / (1 + np.exp(-gate))
        x = x + self.w[f"{self.layer}.self_attn.o_proj.weight"] @ mixed.reshape(-1)
        inner = self.norm(x, f"{self.layer}.post_attention_layernorm")
        gate, up = (self.w[f"{self.layer}.mlp.{name}_proj.weight"] @ inner for name in ("gate", "up"))
        return x + self.w[f"{self.layer}.mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * up)
