"""Every stage of a published model's config, from a fresh workdir on a tiny checkpoint of its architecture to an answer."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_configs import MODELS, ROOT
from tiny_folders import add_layer, write_tiny

from specexit_jax.exits.policy_file import load_policy
from specexit_jax.sizing.presets import PUBLISHED, TARGETS

CHAINS = ("mimo_7b_rl", "qwen3_8b", "r1_distill_llama_8b", "r1_distill_qwen_7b")
FORMATS = {"mimo_7b_rl": "checkpoint"}  # others: eagle
# Of the others thresholds are chosen by grid. A random model rarely closes its thinking, which counts as harm: nearly all is
# allowed.
CERTIFIED = {"mimo_7b_rl": ("--epsilon=0.98", "--delta=0.5")}
# MiMo's draft is of another kind, with values of its own.
DRAFT_KEYS = ("kind", "family", "init", "draft_vocab_size", "ttt_steps", "ttt_decay")
# What makes it small: the sizes of model, traces and run. All else is the config's own.
SMALL = {
    "rollout.max_new_tokens": 40, "train.row_length": 96, "train.steps": 6, "train.batch_size": 2,
    "train.optimizer.warmup_steps": 2, "train.intermediate_size": 24, "train.draft_vocab_size": 64, "train.held_out_rows": 2,
    "train.evaluate_every": 3, "train.log_every": 2, "train.chunk": 32, "evaluate.loop_parts": False,
    "evaluate.latency_per_task": 1, "calibrate.score.epochs": 2, "calibrate.score.hidden": 8, "source.checker": "math",
}  # fmt: skip


def launch(stage: str, *arguments: str) -> str:
    """Its standard output; the stage must end well."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", f"launch.{stage}", *arguments], capture_output=True, text=True, cwd=ROOT, env=environment,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, f"{stage}: {done.stderr}"
    return done.stdout


@pytest.fixture
def problems(tmp_path) -> Path:
    """A table whose questions fall into all splits."""
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i}+{i}?", "answer": str(i % 4)}) + "\n" for i in range(80)))
    return path


def architecture_of(name: str) -> str:
    target = importlib.import_module(f"configs.{name}").get_config().target
    return TARGETS[PUBLISHED[target]].architecture


def test_published_configs_differ_in_their_sizes_alone():
    """So that the chain of one of each architecture is that of all."""
    flat = {}
    for name in MODELS:
        config = importlib.import_module(f"configs.{name}").get_config()
        rows = config.rollout.batch_size
        assert config.evaluate.batch_size == rows
        config.target = config.train.intermediate_size = config.rollout.batch_size = config.evaluate.batch_size = None
        for key in DRAFT_KEYS:
            config.train[key] = None
        config.train.optimizer.learning_rate = None
        flat[name] = config.to_json()
    assert len(set(flat.values())) == 1
    assert {architecture_of(name) for name in CHAINS} == {architecture_of(name) for name in MODELS}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_every_stage_starts_from_what_the_one_before_it_left(name, tmp_path, problems):
    architecture, workdir = architecture_of(name), tmp_path / "work"
    tiny = write_tiny(tmp_path / "tiny", architecture=architecture, closes=True)
    if architecture == "mimo":
        add_layer(tiny / "target")
    values = SMALL | {"target": tiny / "target", "source.name": problems}
    config = [f"--config={ROOT / 'configs' / name}.py", *(f"--config.{key}={value}" for key, value in values.items())]
    options = [*config, f"--workdir={workdir}"]
    launch("plan", *config, "--devices=1")
    launch("rollout", *options)
    splits = importlib.import_module(f"configs.{name}").get_config().rollout.per_task
    assert {path.parent.name for path in workdir.glob("*/traces.jsonl")} == set(splits)
    launch("annotate", *options)
    launch("train", *options)
    launch("calibrate", *options, *CERTIFIED.get(name, ()))
    policy = load_policy(workdir / "policy.json")
    assert (policy.certificate is not None) == (name in CERTIFIED) and policy.made_for is not None
    launch("rollout", *options, "--splits=test", "--limit=6")
    (trace, *_) = [json.loads(line) for line in (workdir / "test" / "traces.jsonl").read_text().splitlines()]
    assert trace["draft"] and len(trace["accepted"]) > 1  # the trained draft has speculated
    launch("evaluate", *options, "--limit=6")
    methods = json.loads((workdir / "results.json").read_text())["methods"]
    assert {"think", "eagle3", "specexit"} <= methods.keys()
    pair = [f"--target={tiny / 'target'}", f"--draft={workdir / 'draft_model'}"]
    launch("export", *pair, f"--out={tmp_path / 'export'}", f"--format={FORMATS.get(name, 'eagle')}")
    answer = json.loads(launch("generate", *pair, "--prompt=3+3?", "--json", "--max_new_tokens=40"))
    assert answer["method"] == "specexit"  # the policy that calibration left beside the draft
