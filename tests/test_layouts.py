"""Weights stored in the layout that the compiled programs read: equal values, and the compiled programs expect it."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from decoding_case import TARGET
from random_params import random_params

from specexit_jax.models.checkpoints.hf_layout import on_device
from specexit_jax.models.target import Target, init_target
from specexit_jax.parallel import layouts
from specexit_jax.parallel.sharding import make_mesh, placer


def test_a_program_reads_kernels_as_they_lie(monkeypatch):
    config = dataclasses.replace(TARGET, num_layers=1, capture=(0, 0, 0))
    params = random_params(init_target, config, 0)
    tokens = jnp.arange(6, dtype=jnp.int32)[None]
    forward = jax.jit(lambda params: Target(config).apply({"params": params}, tokens, tokens).logits)
    plain = forward(params)
    monkeypatch.setattr(layouts, "_PLATFORMS", ("cpu",))
    monkeypatch.setattr(layouts, "_LANES", 24)  # all columns fill them, half of them do not
    for place, order, text in ((on_device, (1, 0, 2), "2,0,1"), (placer(make_mesh(2, 2, 2)), (1, 2, 0), "0,2,1")):
        placed = jax.tree_util.tree_map_with_path(
            lambda path, leaf, place=place: place(
                np.asarray(leaf), jax.tree_util.keystr(path, simple=True, separator="/")
            ),
            params,
        )
        layer = placed["layers_0"]
        for leaf, wanted in (
            (layer["mlp"]["gate_up"], order),
            (layer["mlp"]["down"], (0, 1)),
            (layer["attention"]["qkv"], (1, 2, 0, 3)),
            (layer["attention"]["o"], (1, 0, 2, 3)),
        ):
            assert leaf.format.layout.major_to_minor == wanted
        jax.tree.map(np.testing.assert_array_equal, placed, params)
        compiled = forward.lower(placed).compile()
        np.testing.assert_allclose(compiled(placed), plain, atol=1e-5)
        inputs = compiled.as_text().split("entry_computation_layout=", 1)[1].split("->")[0]
        assert re.search(rf"f32\[\d+,2,\d+\]\{{{text}", inputs)  # gate_up, as it lies
