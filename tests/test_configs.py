"""Every config is an experiment that the entry points can read."""

import importlib
import json
from pathlib import Path

import pytest

from launch.draft_stage import described
from specexit_jax.exits.problems_needed import problems_needed
from specexit_jax.models.checkpoints.hf import load_target_config
from specexit_jax.training.optimizer import OptimizerConfig

ROOT = Path(__file__).resolve().parent.parent
MODELS = {
    "mimo_7b_rl": "mimo-7b-rl",
    "qwen3_4b_thinking": "qwen3-4b-thinking-2507",
    "qwen3_8b": "qwen3-8b",
    "r1_distill_llama_8b": "deepseek-r1-distill-llama-8b",
    "r1_distill_qwen_1_5b": "deepseek-r1-distill-qwen-1.5b",
    "r1_distill_qwen_7b": "deepseek-r1-distill-qwen-7b",
}


def test_no_config_is_left_out():
    others = {"embedded", "models", "smollm2", "tiny_local"}
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} == {*others, *MODELS}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_published_models_config_fits_the_model(name, tmp_path):
    config = importlib.import_module(f"configs.{name}").get_config()
    published = json.loads((ROOT / "tests" / "fixtures" / "published" / f"{MODELS[name]}.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(published))
    target = load_target_config(tmp_path)
    assert config.target.lower().endswith(MODELS[name])
    assert config.train.intermediate_size == target.intermediate_size
    draft = described(config.train, target)
    assert draft.draft_vocab_size < target.vocab_size or not draft.own_head
    assert config.rollout.max_new_tokens < target.max_position
    OptimizerConfig(**config.train.optimizer, total_steps=config.train.steps)


def test_smollm2_trains_a_draft_without_signals_and_keeps_test_for_the_evaluation():
    config = importlib.import_module("configs.smollm2").get_config()
    assert config.train.signals == "none" and "test" not in config.rollout.per_task
    assert config.evaluate.draft_tokens <= config.train.ttt_steps
    OptimizerConfig(**config.train.optimizer, total_steps=config.train.steps)


def test_tiny_local_certifies_on_problems_enough_and_reads_the_target_that_its_variant_trains():
    module = importlib.import_module("configs.tiny_local")
    config, target = module.get_config(), module.get_config("target")
    assert config.target == "runs/tiny_target/target" and target.train.stage == "target"
    problems = config.rollout.per_task["calibration"] * len(config.tasks)
    assert problems >= problems_needed(0.05, 0.05, 0.01)
    assert config.evaluate.per_task <= config.rollout.per_task["test"]
    with pytest.raises(ValueError, match="no variant 'demo'"):
        module.get_config("demo")
