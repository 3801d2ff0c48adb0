"""The default experiment: a small reasoning model, bundled, on the reasoning world; everything on two CPU cores.

Variants: `embedded.py` (draft training, calibration, evaluation), `:target` (trains the bundled target itself),
`:demo` (what launch/demo.sh evaluates).

The bundled target is the first one, made before the writer of traces was mended (other words for gcd and
family_relationships, mended traces, 25 % slips for 18 %) and before the values below were set; its successor is in
training. It has 16 layers of 96 and saw 4,900 steps of 4 rows of 512 tokens (10 M tokens), Muon, linear decay, one core of
a 2-core CPU, about 75 minutes (0.8 s a step). Its log: loss 0.47 after 0.9 M tokens, 0.24 after 3.7 M, 0.12 after 7 M, 0.10
at the end. Accuracy of full thinking on 1,500 problems of the draft split at temperature 0.8: chain_sum 98.4 %,
leg_counting 98.0 %, gsm_symbolic 88.8 %, syllogism 86.4 %, gcd 65.6 %, family_relationships 39.2 %, mean 79.4 %. The run
was stopped and resumed four times, and the end of its linear decay moved with it (6,000, 4,200, 5,200, 4,900 steps), as the
time left did; it was driven by a script with its settings, before this entry point existed.

The bundled draft: 230 steps of 4 rows of 1,024 tokens on 1,500 labelled traces, AdamW at 3e-3, about 8 minutes on one
core (until step 56 the decay was planned for 420 steps). The Muon settings below reach 0.93 accepted at every step of the
chain after 800 steps on another target's 4,800 traces (14 minutes on two cores), where AdamW had 0.72 after 230.
"""

from pathlib import Path

import ml_collections

ASSETS = Path(__file__).resolve().parent.parent / "specexit_jax" / "assets" / "embedded"
TASKS = ("chain_sum", "gsm_symbolic", "leg_counting", "gcd", "family_relationships", "syllogism")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The experiment's numbers; structure is chosen by `variant`, values by `--config.key=value`."""
    if variant not in ("", "target", "demo"):
        raise ValueError(f"configs/embedded.py has no variant {variant!r}: choose target or demo, or leave it out")
    config = ml_collections.ConfigDict(
        {
            "target": str(ASSETS / "target"),
            "draft": str(ASSETS / "draft"),
            "policy": str(ASSETS / "policy.json"),
            "tasks": TASKS,
            "seed": 0,
            # problems a task in each split's rollouts
            "rollout": {
                "per_task": {"draft": 800, "development": 400, "calibration": 1000, "test": 1000},
                # on CPU one row decodes 2 to 3 times as many tokens a second as a batch; on an accelerator take 64
                "batch_size": 1,
                "max_new_tokens": 880,
            },
            "annotate": {"batch_size": 64, "max_answer": 16, "kind": "stable", "kinds": ("paragraph",)},
            "train": {
                "stage": "draft",
                "steps": 1000,
                "batch_size": 4,
                "row_length": 1024,
                "seed": 0,
                "draft_vocab_size": 512,
                "intermediate_size": 256,
                "signals": "fc",
                "ttt_steps": 4,
                "ttt_decay": 0.8,
                "signal_weights": (1.0, 1.0, 1.0),
                "boundary_weight": 16.0,
                "weighting": "fixed",
                "optimizer": {
                    "name": "muon",
                    "learning_rate": 3e-3,
                    "muon_learning_rate": 1.2e-2,
                    "warmup_steps": 60,
                    "final_fraction": 0.03,
                    "schedule": "linear",
                    "weight_decay": 0.01,
                },
                "evaluate_every": 200,
                "log_every": 50,
                "save_seconds": 240.0,
            },
            "calibrate": {
                "split": "development",
                "bound": 0.0025,
                "smoothers": ("none", "ewma", "mean", "momentum", "paragraph_mean"),
            },
            "evaluate": {
                "split": "test",
                "methods": ("think", "nothink", "first_answer", "eagle3", "specexit", "probe", "oracle", "ceiling"),
                "per_task": 1000,
                "latency_per_task": 8,
                "latency_rounds": 3,
                "draft_tokens": 3,
                "batch_size": 1,
            },
        }
    )
    if variant == "demo":
        config.evaluate.per_task = 20
        config.evaluate.latency_per_task = 3
        config.evaluate.methods = ("think", "nothink", "first_answer", "eagle3", "specexit", "probe", "oracle")
    if variant == "target":
        config.train = target_training()
    return config


def target_training() -> ml_collections.ConfigDict:
    """How the bundled target was trained."""
    return ml_collections.ConfigDict(
        {
            "stage": "target",
            "steps": 7000,
            "batch_size": 4,
            "row_length": 512,
            "seed": 0,
            "per_task": 5600,
            "vocab_size": 1536,
            "mixture": {"traces_per_problem": 1, "mended": 0.4, "stopped": 1.0, "unthought": 0.05},
            "model": {
                "hidden_size": 96,
                "intermediate_size": 256,
                "num_layers": 16,
                "num_heads": 3,
                "num_kv_heads": 1,
                "head_dim": 32,
                "max_position": 1024,
            },
            "temperature": 0.8,
            "init": "",
            "optimizer": {
                "name": "muon",
                "learning_rate": 3e-3,
                "muon_learning_rate": 1.6e-2,
                "warmup_steps": 150,
                "final_fraction": 0.03,
                "schedule": "linear",
                "weight_decay": 0.01,
            },
            "log_every": 50,
            "save_seconds": 240.0,
        }
    )
