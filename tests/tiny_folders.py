"""A random reasoning model on disk: target, tokenizer, draft, policy and generation config, made in a second."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from specexit_jax.data.tokenizer import train_tokenizer
from specexit_jax.exits.policy_file import PolicyFile, save_policy
from specexit_jax.models.checkpoints.content import draft_digest
from specexit_jax.models.checkpoints.hf import load_target_config, save_draft, save_target
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import init_draft
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.mtp_config import mtp_config
from specexit_jax.models.target import init_target

TEXTS = ("Count the legs of 3 dogs.", "3*4=12.\n\nSo the answer is 12.\n\nWait, let me check. 4+4+4=12.\n\n") * 2
VOCABULARY = 300


def write_tiny(
    folder: Path, seed: int = 0, temperature: float = 1.0, architecture: str = "qwen3", closes: bool = False
) -> Path:
    """folder/{target, draft, policy.json}; the random model writes a paragraph end every few tokens, and closes its thinking now
    and then if it `closes`."""
    tokenizer = train_tokenizer(TEXTS, VOCABULARY)
    size = len(tokenizer)
    switches = {"qk_norm": architecture == "qwen3", "qkv_bias": architecture in ("qwen2", "mimo")}
    target = TargetConfig(architecture, size, 16, 24, 2, 2, 1, 8, max_position=96, capture=(0, 1, 1), **switches)
    draft = DraftConfig(16, 16, 24, 2, 1, 8, vocab_size=size, draft_vocab_size=64)
    params = _random(functools.partial(init_target, target), seed)
    _say_few_tokens(params, [*tokenizer.encode(".\n\n answer" + "</think>" * closes), tokenizer.eos_token_id])
    save_target(folder / "target", target, params)
    tokenizer.save_pretrained(folder / "target")
    defaults = {"do_sample": True, "temperature": temperature, "max_new_tokens": 48}
    (folder / "target" / "generation_config.json").write_text(json.dumps(defaults))
    ids = np.sort(np.random.default_rng(seed).permutation(size)[:64])
    save_draft(
        folder / "draft", DraftBundle(draft, _random(functools.partial(init_draft, draft), seed), ids.astype(np.int32))
    )
    write_policy(folder, str(draft_digest(folder / "draft", draft)))
    return folder


def add_layer(folder: Path, family: str = "mimo", seed: int = 0) -> None:
    """A random MTP layer without signals, into the checkpoint of the target in `folder`."""
    config = mtp_config(load_target_config(folder), family, signals="none")
    params, ids = _random(functools.partial(init_draft, config), seed), np.arange(config.vocab_size, dtype=np.int32)
    save_draft(folder / "layer", DraftBundle(config, params, ids))
    file = folder / "model.safetensors"
    save_file(load_file(file) | load_file(folder / "layer" / file.name), file)
    shutil.rmtree(folder / "layer")


def _random(init, seed: int):
    """Parameters of init's shapes, drawn by numpy: nothing to compile."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)


def _say_few_tokens(params: dict, wanted: list[int]) -> None:
    """Makes a model write only 16 tokens, `wanted` among them and the last of these seldom, through a constant first unit."""
    params["embed"]["embedding"][:, 0] = 4
    params["lm_head"] *= 0.3
    params["lm_head"][0] = 0
    params["lm_head"][0, [*wanted, *range(20, 36 - len(wanted))]] = 2.5
    params["lm_head"][0, wanted[-1]] = 2.0
    params["final_norm"]["scale"][:] = 1


def write_policy(folder: Path, draft: str, thresholds=(0.0, 0.0, 1e5)) -> None:
    """A policy that by default exits at the first paragraph end."""
    save_policy(
        folder / "policy.json",
        PolicyFile("default", "ewma", ("paragraph",), thresholds, None, 0.005, None, "development", 10, draft),
    )
