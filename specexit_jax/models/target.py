"""The target: a Llama 3 / Qwen2 / Qwen3 decoder as a pure function of (params, tokens, positions, cache)."""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from specexit_jax.backend import platform, rows_apart
from specexit_jax.models.attention import Attention
from specexit_jax.models.branches import BranchCache
from specexit_jax.models.cache import Cache, init_cache
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.layer_stack import LAYERS, scan_layers
from specexit_jax.models.layers import FeedForward, RMSNorm, cached_bias, normal, rotary_angles
from specexit_jax.models.prefix_attention import Reach, in_blocks
from specexit_jax.models.row_attention import row_mask


@flax.struct.dataclass
class TargetOutput:
    """`logits` float32 [B, T, V] (None if not requested), `features` [B, T, A] (`TargetConfig.capture`), final
    normed `hidden` [B, T, D]."""

    logits: jax.Array | None
    features: jax.Array
    hidden: jax.Array
    cache: Cache | BranchCache | None


class Block(nn.Module):
    """One pre-norm decoder layer."""

    config: TargetConfig

    @nn.compact
    def __call__(self, x, cos, sin, bias, kv, length):
        config = self.config
        # Each layer adds two branches to the residual. Scaling their outputs keeps its variance near 1 at any depth.
        output_scale = (2 * config.num_layers) ** -0.5
        attention = Attention(
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.hidden_size,
            config.rms_norm_eps,
            config.qk_norm,
            config.qkv_bias,
            output_scale,
            config.attention,
            name="attention",
        )
        mixed, kv = attention(RMSNorm(config.rms_norm_eps, name="input_norm")(x), cos, sin, bias, kv, length)
        x = x + mixed
        feed = FeedForward(config.intermediate_size, output_scale, name="mlp")
        return x + feed(RMSNorm(config.rms_norm_eps, name="mlp_norm")(x)), kv


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def run_block(config: TargetConfig, platform: str, params: dict, x, cos, sin, bias, kv, length):
    """`Block` over a cache, traced once for all layers of one shape; platform: what is traced for."""
    return Block(config, parent=None).apply({"params": params}, x, cos, sin, bias, kv, length)


class Embedding(nn.Module):
    """The embedding table [V, D]; also the head if embeddings are tied."""

    config: TargetConfig

    def setup(self):
        config = self.config
        self.embedding = self.param(
            "embedding", normal(config.hidden_size), (config.vocab_size, config.hidden_size), jnp.float32
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return jnp.take(self.embedding, tokens, axis=0, mode="clip").astype(self.config.dtype)

    def attend(self, hidden: jax.Array) -> jax.Array:
        table = self.embedding.astype(hidden.dtype)
        return jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)


class Target(nn.Module):
    """`Target(config).apply({"params": params}, tokens, positions, cache)`.

    Layers are unrolled as `layers_0` ...; without a cache they may be stacked (`layer_stack.stack_layers`).
    """

    config: TargetConfig

    def setup(self):
        config = self.config
        self.embed = Embedding(config)
        self.layers = [Block(config) for _ in range(config.num_layers)]
        self.final_norm = RMSNorm(config.rms_norm_eps)
        if not config.tie_embeddings:
            shape = (config.hidden_size, config.vocab_size)
            self.lm_head = self.param("lm_head", normal(config.hidden_size), shape, jnp.float32)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        cache: Cache | BranchCache | None = None,
        segment_ids: jax.Array | None = None,
        live: int | None = None,
        logits: bool = True,
        visible: jax.Array | None = None,
    ) -> TargetOutput:
        """Run T tokens [B, T] at RoPE `positions` [B, T].

        Without a cache: causal attention over the T tokens, within `segment_ids` where given.
        With a cache: token t is written at position cache.length + t and sees positions 0 .. cache.length + t, of which
        only the first `live` (static; None = all) are read; they must reach the longest row. The returned cache is T
        longer; rewind it by its lengths. Rows need S - length >= T free positions. `visible` [B, T, M] replaces the causal
        order among the last M positions (see `cached_bias`).
        """
        config = self.config
        bias = attention_bias(config.row_attention, tokens, cache, segment_ids, live, visible)
        cos, sin = rotary_angles(positions, config.head_dim, config.rope_theta, config.rope_scaling)
        x, written = rows_apart(self.embed(tokens)), []
        if self.has_variable("params", LAYERS):
            x, captured = self.stacked(x, cos, sin, bias, cache)
        else:
            inputs = []
            for index, layer in enumerate(self.layers):
                inputs.append(x)
                run = layer
                if cache is not None:
                    run = functools.partial(run_block, config, platform(), layer.variables["params"])
                x, kv = run(x, cos, sin, bias, *layer_cache(cache, index))
                x = rows_apart(x)
                written.append(kv)
            captured = [inputs[index] for index in config.capture_layers]
        hidden = self.final_norm(x)
        return TargetOutput(
            logits=self.head(hidden) if logits else None,
            features=features_of(config, captured, x, hidden),
            hidden=hidden,
            cache=None if cache is None else advance(cache, written, tokens.shape[1]),
        )

    def stacked(self, x, cos, sin, bias, cache) -> tuple[jax.Array, list[jax.Array]]:
        """x after the stacked layers, and the captured inputs. Raises ValueError with a cache."""
        if cache is not None:
            raise ValueError("Stacked layers have no caches: keep the layers apart where tokens are decoded.")

        def run(weights: dict, x: jax.Array) -> jax.Array:
            block = Block(self.config, parent=None)
            return block.apply({"params": weights}, x, cos, sin, bias, None, None)[0]

        return scan_layers(run, self.get_variable("params", LAYERS), x, self.config.capture_layers)

    def head(self, hidden: jax.Array) -> jax.Array:
        """Float32 logits [B, T, V] of the final normed hidden."""
        if self.config.tie_embeddings:
            return self.embed.attend(hidden)
        return jnp.einsum("btd,dv->btv", hidden, self.lm_head.astype(hidden.dtype), preferred_element_type=jnp.float32)


def features_of(config: TargetConfig, captured: list[jax.Array], last: jax.Array, hidden: jax.Array) -> jax.Array:
    """The features [B, T, A] that `capture` asks for. captured: inputs of its layers; last, hidden: before and after the final
    norm."""
    if isinstance(config.capture, str):
        return {"residual": last, "normed": hidden}[config.capture]
    return jnp.concatenate(captured, axis=-1)


def attention_bias(
    path: str,
    tokens: jax.Array,
    cache: Cache | BranchCache | None,
    segment_ids: jax.Array | None,
    live: int | None,
    visible: jax.Array | None = None,
    window: int = 0,
):
    """The mask of a call, shared by its layers: additive over a cache's positions, `row_mask`'s for `path`, or a `Reach`."""
    count = tokens.shape[1]
    if cache is None:
        return row_mask(path, segment_ids, count, window)
    if segment_ids is not None:
        raise ValueError("Packed segments and a cache cannot be combined: a cache holds one document a row.")
    if isinstance(cache, BranchCache):
        return cache.biases(cache.prefix.capacity if live is None else live)
    live = cache.capacity if live is None else live
    if live > cache.capacity:
        raise ValueError(f"Asked to read {live} positions of a cache whose capacity is {cache.capacity}: lower `live`.")
    if visible is None and in_blocks(count, live):
        return Reach(cache.length, window, live)
    return cached_bias(cache.length, count, live, visible, window)


def layer_cache(cache: Cache | BranchCache | None, index: int):
    """((keys, values), length) of one layer, or two Nones."""
    if isinstance(cache, BranchCache):
        return cache.layer(index)
    return (None, None) if cache is None else ((cache.k[index], cache.v[index]), cache.length)


def advance(cache: Cache | BranchCache, written: list, tokens: int) -> Cache | BranchCache:
    """The cache after `tokens` more of every row."""
    if isinstance(cache, BranchCache):
        return cache.advanced(written)
    keys, values = zip(*written, strict=True)
    return Cache(tuple(keys), tuple(values), cache.length + jnp.int32(tokens))


def init_target_cache(config: TargetConfig, batch: int, capacity: int) -> Cache:
    """An empty cache for this target."""
    return init_cache(config.num_layers, config.num_kv_heads, config.head_dim, batch, capacity, config.dtype)


def init_target(config: TargetConfig, key: jax.Array) -> dict:
    """Fresh float32 parameters."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Target(config).init(key, tokens, tokens)["params"]
