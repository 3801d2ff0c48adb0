"""Stacked layers compute what layers apart compute, lie as these do, and make a program that does not grow with their number."""

import dataclasses
import functools
import weakref

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from decoding_case import QUICK
from random_params import random_params
from sharded_case import shard_tree

from launch import loading
from specexit_jax.backend import on_mesh
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.layer_stack import LAYERS, stack_layers
from specexit_jax.models.target import Target, init_target, init_target_cache
from specexit_jax.parallel import layouts
from specexit_jax.parallel.sharding import AXES, make_mesh, shard_batch, spec_of, stacker, tree_shardings
from specexit_jax.parallel.tree_paths import flatten

CONFIG = TargetConfig(
    "qwen3", vocab_size=40, hidden_size=16, intermediate_size=24, num_layers=5, num_heads=4, num_kv_heads=2, head_dim=8,
    qk_norm=True, qkv_bias=True, tie_embeddings=True, capture=(4, 1, 1),
)  # fmt: skip
MESH = (2, 2, 2)


@functools.cache
def apart():
    with jax.ensure_compile_time_eval():
        return random_params(init_target, CONFIG, 0)


def stacked(join=None):
    return stack_layers(jax.tree.map(lambda leaf: leaf, apart()), join)


def batch(rows=4, tokens=12):
    segments = np.where(np.arange(tokens)[None] < np.array([[5], [12], [8], [3]]), 1, 2).astype(np.int32)
    places = np.broadcast_to(np.arange(tokens, dtype=np.int32)[None], (rows, tokens))
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (rows, tokens)).astype(np.int32)
    return {"tokens": tokens, "positions": places, "segment_ids": segments}


def outputs(config, params, inputs):
    run = functools.partial(Target(config).apply, {"params": params})
    out = jax.jit(lambda i: run(i["tokens"], i["positions"], segment_ids=i["segment_ids"]), compiler_options=QUICK)(
        inputs
    )
    return out.logits, out.features, out.hidden


@pytest.mark.parametrize(("dtype", "path"), [("float32", "plain"), ("float32", "fused"), ("bfloat16", "plain")])
@pytest.mark.parametrize("devices", [1, 8])
def test_stacked_layers_compute_what_layers_apart_compute(dtype, path, devices):
    config = dataclasses.replace(CONFIG, dtype=dtype, row_attention=path)
    cast = functools.partial(jax.tree.map, lambda leaf: leaf.astype(dtype))
    wanted = outputs(config, cast(apart()), batch())
    params, inputs, mesh = cast(stacked()), batch(), None
    if devices == 8:
        mesh = make_mesh(*MESH)
        params, inputs = shard_tree(params, mesh), shard_batch(inputs, mesh)
    with on_mesh(mesh):
        found = outputs(config, params, inputs)
    near = 1e-5 if dtype == "float32" else 0.02
    for a, b in zip(found, wanted, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.abs(a - b).max() <= near * np.abs(b).max()


def test_a_stack_lies_as_its_layers_do():
    """Over devices: split like a layer, layers whole on each; in memory: one layer after the other, each in its order."""
    mesh = make_mesh(*MESH)
    placed = stack_layers(shard_tree(apart(), mesh), stacker(mesh))
    assert jax.tree.map(lambda leaf: leaf.sharding, placed) == tree_shardings(placed, mesh)
    for path, leaf in flatten(placed[LAYERS]).items():
        layers = [flatten(apart())[f"layers_{index}/{path}"] for index in range(CONFIG.num_layers)]
        np.testing.assert_array_equal(leaf, np.stack(layers))
        split = tuple(spec_of(f"layers_0/{path}", layers[0].shape, mesh))
        assert tuple(leaf.sharding.spec) == (None, *split)
    assert any("fsdp" in leaf.sharding.spec for leaf in jax.tree.leaves(placed[LAYERS]))


def test_the_axes_of_a_stack_are_ordered_as_a_layer_is_read(monkeypatch):
    monkeypatch.setattr(layouts, "_PLATFORMS", ("cpu",))
    narrow = stacked(stacker(None))[LAYERS]  # its columns fill no whole lanes
    assert narrow["mlp"]["gate_up"].format.layout.major_to_minor == (0, 2, 3, 1)
    monkeypatch.setattr(layouts, "_LANES", 1)
    placed = stacked(stacker(None))[LAYERS]
    assert placed["mlp"]["gate_up"].format.layout.major_to_minor == (0, 2, 1, 3)
    assert placed["attention"]["qkv"].format.layout.major_to_minor == (0, 2, 3, 1, 4)
    np.testing.assert_array_equal(placed["mlp"]["gate_up"][2], apart()["layers_2"]["mlp"]["gate_up"])


def test_layers_are_let_go_kind_by_kind():
    """When a kind is joined, the kinds before it are freed: two copies of all weights are never held."""
    loaded = jax.tree.map(jnp.copy, apart())
    before: list[weakref.ref] = []

    def join(arrays, path):
        assert path.startswith("layers/") and len(arrays) == CONFIG.num_layers
        assert all(reference() is None for reference in before)
        before.extend(map(weakref.ref, arrays))
        return jnp.stack(arrays)

    found = stack_layers(loaded, join)
    assert all(reference() is None for reference in before) and len(before) == 9 * CONFIG.num_layers
    assert set(found) == {"embed", "final_norm", LAYERS} and not any(name.startswith("layers_") for name in loaded)


def test_a_program_does_not_grow_with_the_number_of_layers():
    def lines(layers):
        config = dataclasses.replace(CONFIG, num_layers=layers, capture=(0, 1, 2))
        shapes = jax.eval_shape(lambda: stack_layers(init_target(config, jax.random.key(0))))
        run = jax.jit(lambda params, i: Target(config).apply({"params": params}, **i).features)
        return len(run.lower(shapes, batch()).as_text().splitlines())

    assert lines(12) <= lines(3) + 5


def test_stacked_layers_refuse_a_cache():
    tokens = jnp.zeros((1, 1), jnp.int32)
    with pytest.raises(ValueError, match="Stacked layers have no caches"):
        Target(CONFIG).apply({"params": stacked()}, tokens, tokens, init_target_cache(CONFIG, 1, 16))


def test_a_training_session_has_stacked_layers_and_a_decoding_session_has_not(tiny):
    config = ml_collections.ConfigDict(
        {"target": str(tiny / "target"), "dtype": "float32", "mesh": dict(zip(AXES, (1, 1, 1), strict=True))}
    )
    config.train, config.attention = {"mesh": dict(zip(AXES, MESH, strict=True))}, "pallas"
    decoding, training = loading.open_session(config), loading.open_training_session(config)
    assert LAYERS not in decoding.params.target and "layers_1" in decoding.params.target
    assert decoding.target.attention == "pallas", "as the config says"
    layers = training.params.target[LAYERS]
    assert "layers_0" not in training.params.target
    np.testing.assert_array_equal(layers["mlp"]["down"][1], decoding.params.target["layers_1"]["mlp"]["down"])
    assert layers["mlp"]["down"].sharding.spec[0] is None and len(layers["mlp"]["down"].sharding.device_set) == 8
