"""The published configs of common models, without weights: every tensor's name, shape and parameter."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

from specexit_jax.models.checkpoints.hf import load_target_config
from specexit_jax.models.checkpoints.hf_layout import shapes, target_layout
from specexit_jax.models.target import init_target
from specexit_jax.parallel.sharding import make_mesh, spec_of
from specexit_jax.parallel.tree_paths import flatten

PUBLISHED = Path(__file__).parent / "fixtures" / "published"
PARAMETERS = {  # as the model cards count them
    "deepseek-r1-distill-llama-8b": 8_030_261_248,
    "deepseek-r1-distill-qwen-1.5b": 1_777_088_000,
    "deepseek-r1-distill-qwen-7b": 7_615_616_512,
    "qwen3-4b-thinking-2507": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
}


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_every_tensor_has_its_name_shape_and_place(name, tmp_path):
    text = (PUBLISHED / f"{name}.json").read_text()
    (tmp_path / "config.json").write_text(text)
    config = load_target_config(tmp_path)
    layout = target_layout(config)
    with torch.device("meta"):
        published = transformers.AutoConfig.for_model(**json.loads(text))
        model = transformers.AutoModelForCausalLM.from_config(published)
    theirs = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if config.tie_embeddings:
        assert theirs.pop("lm_head.weight") == theirs["model.embed_tokens.weight"]
    assert shapes(layout) == theirs

    ours = flatten(jax.eval_shape(functools.partial(init_target, config), jax.random.key(0)))
    assert set(ours) == set(layout)
    for path, leaf in layout.items():
        assert sum(np.prod(shape) for shape in leaf.tensors.values()) == np.prod(ours[path].shape)
    assert sum(np.prod(leaf.shape) for leaf in ours.values()) == PARAMETERS[name]
    assert config.head_dim == 128 and config.capture_layers == (2, config.num_layers // 2, config.num_layers - 3)

    mesh = make_mesh(1, 1, 2, devices=jax.devices()[:2])
    split = sum(np.prod(leaf.shape) for path, leaf in ours.items() if "tensor" in spec_of(path, leaf.shape, mesh))
    assert split > 0.99 * PARAMETERS[name]  # all but the norms is halved by two devices
