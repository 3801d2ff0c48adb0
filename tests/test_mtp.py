"""MTP layers: each family's equations, every field's two ways, and training-time test as decoding does it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import QUICK
from mtp_case import FAMILIES, TARGETS, D, Equations, V, bundle_of, config_of
from random_params import random_params
from safetensors.numpy import load_file

from specexit_jax.decoding.drafts import layer_calls
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec, LoopContext
from specexit_jax.decoding.state import column
from specexit_jax.models.checkpoints.drafts import load_draft, save_draft
from specexit_jax.models.draft import draft_of, init_draft_cache
from specexit_jax.models.mtp_config import MtpConfig, mtp_config
from specexit_jax.models.target import Target, init_target
from specexit_jax.training.ttt import run_steps

T = 7


@functools.cache
def pairs():
    rng = np.random.default_rng(5)
    return tuple(rng.normal(size=(1, T, D)).astype(np.float32) for _ in range(2))


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def whole(config, params, embedded, hidden):
    """The layer over all pairs, and the logits of a shared head."""
    draft, positions = draft_of(config), jnp.arange(T, dtype=jnp.int32)[None]
    first, _ = draft.apply({"params": params}, hidden, method="fuse")
    out = draft.apply({"params": params}, embedded, first, positions)
    head = jnp.eye(D, V, dtype=jnp.float32)
    return out.hidden, draft.apply({"params": params}, out.hidden, head, method="head"), out.raw_signals


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_computes_what_its_family_says(family, tmp_path):
    save_draft(tmp_path, bundle_of(family))
    again = load_draft(tmp_path)
    embedded, hidden = pairs()
    found, logits, raw = whole(again.config, again.params, embedded, hidden)
    slow = Equations(family, load_file(tmp_path / "model.safetensors"))
    heads = load_file(tmp_path / "signals.specexit")["signal_head.weight"]
    for t in range(T):
        fed, normed = slow.pair(hidden[0, t].astype(np.float64), embedded[0, t].astype(np.float64), t)
        np.testing.assert_allclose(found[0, t], fed, atol=1e-4)
        np.testing.assert_allclose(logits[0, t, :D], normed, atol=1e-4)
        np.testing.assert_allclose(raw[0, t], heads @ normed, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_the_familys(family):
    """The table of docs/mtp.md."""
    told = {
        "mimo": ("residual", "hidden_first", "normed", True, True, False, False),
        "deepseek_v3": ("normed", "embedding_first", "residual", True, False, False, False),
        "qwen3_next": ("normed", "embedding_first", "normed", False, False, True, True),
    }
    fields = ("reads", "order", "feeds_back", "zeroes_first", "qkv_bias", "qk_norm", "output_gate")
    config = mtp_config(TARGETS[family], family)
    assert tuple(getattr(config, name) for name in fields) == told[family]
    assert not config.own_head and config.draft_vocab_size == V
    assert config.reading(TARGETS[family]).capture == config.reads


OTHER = {
    "reads": "normed",
    "order": "embedding_first",
    "feeds_back": "residual",
    "zeroes_first": False,
    "own_head": True,
    "qkv_bias": False,
    "qk_norm": True,
    "output_gate": True,
    "rotary_dim": 4,
}


@functools.cache
def second_step(config: MtpConfig):
    """What two steps give, from one set of numbers as weights: the second one's hidden and logits."""
    everything = bundle_of("mimo", own_head=True, qk_norm=True, output_gate=True).params
    wanted = bundle_of("mimo", **{name: getattr(config, name) for name in OTHER}).params
    params = {name: everything[name] for name in wanted}
    params["attention"] = {name: everything["attention"][name] for name in wanted["attention"]}
    embedded, hidden = pairs()

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(params):
        positions = jnp.arange(T, dtype=jnp.int32)[None]
        batch = {"positions": positions, "segment_ids": jnp.ones_like(positions)}
        hiddens, _ = run_steps(draft_of(config), params, hidden, embedded, batch, 2)
        logits = draft_of(config).apply({"params": params}, hiddens[1], jnp.eye(D, V), method="head")
        return jnp.concatenate([hiddens[1], logits], axis=-1)

    return np.asarray(run(params))


@pytest.mark.parametrize("name", OTHER)
def test_both_ways_of_a_field_differ_and_are_kept_in_files(name, tmp_path):
    base, other = config_of("mimo"), config_of("mimo", **{name: OTHER[name]})
    if name != "reads":  # that is the target's matter
        assert np.abs(second_step(base) - second_step(other)).max() > 1e-3
    for family in FAMILIES:
        bundle = bundle_of(family, **{name: OTHER[name]})
        save_draft(tmp_path / family, bundle)
        again = load_draft(tmp_path / family)
        assert again.config == bundle.config
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), again.params, bundle.params)


def test_what_is_read_of_the_target_is_its_hidden_before_or_after_the_norm():
    target, params = TARGETS["mimo"], random_params(init_target, TARGETS["mimo"], 1)
    tokens = jnp.arange(T, dtype=jnp.int32)[None]

    @functools.partial(jax.jit, compiler_options=QUICK)
    def seen(params):
        outs = [
            Target(config_of("mimo", reads=reads).reading(target)).apply({"params": params}, tokens, tokens)
            for reads in ("residual", "normed")
        ]
        return [out.features for out in outs], outs[0].hidden

    (before, after), hidden = jax.device_get(seen(params))
    scale = np.asarray(params["final_norm"]["scale"])
    np.testing.assert_array_equal(after, hidden)
    root = np.sqrt(np.mean(np.square(before), axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(before / root * scale, after, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_of_training_is_what_decoding_with_a_cache_computes(family):
    """The off-by-one test: pairs 0 .. t in the cache, then the loop's own steps, against steps over the whole row."""
    config = config_of(family, signals="none")
    layer, table = bundle_of(family, signals="none").params, jnp.asarray(np.random.default_rng(1).normal(size=(V, D)))
    table = table.astype(jnp.float32)
    tokens, positions = jnp.arange(3, 3 + T, dtype=jnp.int32)[None], jnp.arange(T, dtype=jnp.int32)[None]
    spec = DecodeSpec(config.reading(TARGETS[family]), 32, (), (), config, 3)
    params = DecodeParams({"embed": {"embedding": table}}, layer, jnp.arange(V, dtype=jnp.int32))
    features = jnp.asarray(pairs()[1])

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(params, counts):
        """Hiddens [step, T, D] of training-time test, and of the loop [step, count, D] after `counts` committed pairs."""
        batch = {"positions": positions, "segment_ids": jnp.ones_like(tokens)}
        taught, _ = run_steps(draft_of(config), params.draft, features, table[tokens], batch, 3)
        loop = LoopContext(spec, params, None, None)
        rows = lambda values: jnp.repeat(values, len(counts), axis=0)  # noqa: E731
        first, _ = layer_calls.fuse(loop, rows(features))
        cache = init_draft_cache(config, len(counts), 32)
        found = layer_calls.run_pairs(loop, cache, 0 * counts, first[:, :-1], rows(tokens)[:, 1:], None)
        hidden, cache = column(found.hidden, counts - 1)[:, None], found.cache
        kept = [hidden]
        for step in range(2):
            token = column(rows(tokens), counts + 1 + step)[:, None]
            out = layer_calls.chain_step(loop, cache, counts, step, hidden, token, None)
            hidden, cache = out.hidden, out.cache
            kept.append(hidden)
        return jnp.stack(taught)[:, 0], jnp.stack(kept)[:, :, 0]

    counts = jnp.arange(1, T - 2, dtype=jnp.int32)
    taught, decoded = both(params, counts)
    np.testing.assert_allclose(decoded, taught[:, counts - 1], atol=1e-4)
    assert np.abs(decoded - taught[:, counts]).max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"family": "gpt"}, "family is 'gpt'"),
        ({"reads": "both"}, "reads is 'both'"),
        ({"signals": "fc"}, "has no `fc`"),
        ({"draft_vocab_size": 8}, "its vocabulary of 48 tokens, not 8"),
        ({"hidden_size": 8, "own_embedding": True}, "as wide as its target"),
        ({"rotary_dim": 3}, "even number"),
    ],
)
def test_what_does_not_fit_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(config_of("mimo"), **changes)


def test_a_target_that_gives_other_features_is_refused():
    with pytest.raises(ValueError, match="reads 16 features of a token, but the target gives 48"):
        DecodeSpec(TARGETS["mimo"], 32, (), (), config_of("mimo"), 3)
    assert dataclasses.replace(TARGETS["mimo"], capture="normed").feature_size == D
    with pytest.raises(ValueError, match="inputs of layers or one of"):
        dataclasses.replace(TARGETS["mimo"], capture="last")
