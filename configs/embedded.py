"""The default experiment: a small reasoning model, bundled, on the reasoning world; everything on two CPU cores.

Variants: `embedded.py` (draft training, calibration, evaluation), `:target` (trains the bundled target itself),
`:demo` (what launch/demo.sh evaluates).

The bundled target has 16 layers of 96 (1.7 M parameters) and saw 12,806 steps of 4 rows of 512 tokens: 26.2 M tokens, 20.4 M of
them trained on, on a 2-core CPU (0.45 s a step with both cores to itself), Muon with linear decay. It was trained in three legs,
because its world was still being mended; the first two saw earlier ways of writing traces, the last one the frozen world:

1. from scratch, 6,000 steps at 1.6e-2 (Muon) and 3e-3 (Adam) to the end of the decay; traces with 35 % slips, people not numbered,
   none mended. Loss 3.1 at step 50, 0.36 at 600, 0.22 at 1,200, 0.16 at 3,000, 0.09 at 4,200, 0.08 at the end.
2. on from there, 1,806 steps of 4,600 planned, at 1e-2 and 2e-3; 35 % slips. Loss 0.27 at step 50, 0.09 at the end.
3. on from there, 5,000 steps at 1e-2 and 2e-3 to the end of the decay; the world as it is. Loss 0.09 at step 2,000, 0.083 at
   4,000, 0.07 at the end.

`:target` is the plain way to such a model: as many steps from scratch, at leg 1's rates. `--config.train.init=FOLDER` goes on from
a folder, as legs 2 and 3 did.

The bundled draft: this config's command, 1,800 steps of 4 rows of 1,024 tokens on 4,800 labelled traces, Muon and Adam as below,
about 1 s a step on two cores; then the signals were solved on the 88,123 boundary tokens (200 s). On held-out rows it accepts 0.97
at each of the four steps that it was trained for, and a chain in the last quarter of a trace is 1.03 times as long as in the first.
AUC of confidence on development boundaries 0.948 (on the held-out rows 0.958 after the steps, 0.960 solved). Earlier drafts, 256
wide and of 1,200 steps: with signals at `fc` AUC 0.916 (0.87 before they were solved), accepting 0.94; at `draft` under signal
weights of 1 AUC 0.941, accepting 0.91: in so narrow a layer the token loss must come first.

Where a token's labels come from, by signals at `fc` solved on 29,117 boundary tokens, scored on 13,661 development boundaries: its
own paragraph's end 0.913 (AUC of confidence), the next boundary 0.845; solved on tokens between boundaries too, 0.898 and 0.869.
"""

from pathlib import Path

import ml_collections
from ml_collections import config_dict

ASSETS = Path(__file__).resolve().parent.parent / "specexit_jax" / "assets" / "embedded"
TASKS = ("chain_sum", "gsm_symbolic", "leg_counting", "gcd", "family_relationships", "syllogism")
SOURCE = (
    "name", "config", "folder", "file", "split", "question", "answer", "checker", "task", "choices", "wrong", "entry_point",
    "instruction", "answer_after", "answer_as", "shares",
)  # fmt: skip
METHODS = ("think", "nothink", "first_answer", "deer", "eagle3", "specexit", "probe", "oracle")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The experiment's numbers; structure is chosen by `variant`, values by `--config.key=value`."""
    if variant not in ("", "target", "demo"):
        raise ValueError(f"configs/embedded.py has no variant {variant!r}: choose target or demo, or leave it out")
    config = ml_collections.ConfigDict(
        {
            "target": str(ASSETS / "target"),
            "draft": str(ASSETS / "draft"),
            "policy": str(ASSETS / "policy.json"),
            # compute and storage of the weights; devices that they are sharded over (one axis may be -1: all that is left)
            "dtype": "float32",
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "tasks": TASKS,
            # where problems come from: with a name, benchmarks (specexit_jax/data/benchmarks.py) or a table on the hub or on disk
            # (data/sources.py, whose defaults hold for what is left empty), else the world
            "source": dict.fromkeys(SOURCE, ""),
            "seed": 0,
            # None: as the target's own generation_config.json says; the same in every stage
            "sampling": {
                "temperature": config_dict.placeholder(float),
                "top_k": config_dict.placeholder(int),
                "top_p": config_dict.placeholder(float),
                "min_p": config_dict.placeholder(float),
                "repetition_penalty": config_dict.placeholder(float),
            },
            # problems in each split's rollouts (of the world: a task), and traces a problem
            "rollout": {
                "per_task": {"draft": 800, "development": 400, "calibration": 1000, "test": 1000},
                # on CPU one row decodes 2 to 3 times as many tokens a second as a batch; on an accelerator take 64
                "batch_size": 1,
                "max_new_tokens": 880,
                "samples": 1,
            },
            # traces at once and boundaries of each at once; request_keys: answers a boundary; confidence: one, keys or deer
            "annotate": {
                "batch_size": 8,
                "branches": 8,
                "max_answer": 16,
                "kind": "stable",
                "kinds": ("paragraph",),
                "request_keys": 1,
                "confidence": "one",
            },
            "train": draft_training(),
            "calibrate": calibration(),
            "evaluate": {
                "split": "test",
                "methods": (*METHODS, "ceiling"),
                "per_task": 1000,
                "latency_per_task": 8,
                "latency_rounds": 3,
                "loop_parts": True,  # prefill, verify, draft, exit, host apart, and acceptance against position: minutes
                "draft_tokens": 3,
                "batch_size": 1,
            },
            # problems a task and seeds of each; the scores of the released rule; a second draft, whose signals lie elsewhere
            "ablate": {"per_task": 200, "seeds": 3, "released": ("ewma",), "draft": ""},
        }
    )
    if variant == "demo":
        config.evaluate.per_task = 20
        config.evaluate.latency_per_task = 3
        config.evaluate.loop_parts = False
        config.evaluate.methods = METHODS
    if variant == "target":
        config.train = target_training()
    return config


def calibration() -> ml_collections.ConfigDict:
    """How the exit is chosen."""
    return ml_collections.ConfigDict(
        {
            "split": "development",
            # What may be lost, with one standard error to spare: the best of thousands of settings flatters itself.
            "bound": 0.005,
            "standard_errors": 1.0,
            "smoothers": ("none", "ewma", "boundary_ewma", "mean", "momentum", "paragraph_mean"),
            # With --epsilon: the split that certifies, what is exited by, thinking tokens after which a problem is given
            # up (0: none is), and the epsilons whose cost frontier.json tells.
            "certify_on": "calibration",
            "signals": ("confidence", "progress", "remain"),
            "budget": 0,
            "frontier": (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05),
        }
    )


def draft_training() -> ml_collections.ConfigDict:
    """How the bundled draft was trained."""
    return ml_collections.ConfigDict(
        {
            "stage": "draft",
            "steps": 1800,
            "batch_size": 4,
            "row_length": 1024,
            "seed": 0,
            "draft_vocab_size": 512,
            "intermediate_size": 384,
            # where the signals are read (docs/method.md §1): draft (its layer, which sees the whole trace) or fc (the released
            # code's place)
            "signals": "draft",
            "ttt_steps": 4,
            "ttt_decay": 0.8,
            "signal_weights": (0.3, 0.1, 0.1),
            "label_place": "paragraph_end",
            "boundary_weight": 16.0,
            # documents side by side in a row; the target's pass in every step, or once and kept on disk
            "pack": True,
            "features": "online",
            # over the devices of all processes: the global batch and the loss stay what they are
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "init": "random",
            # long rows: 0 or the tokens a draft sees, how rows attend, tokens whose logits exist at once, layers computed twice
            "sliding_window": 0,
            "row_attention": "auto",
            "chunk": 1024,
            "remat": False,
            "signal_positions": 200_000,
            "held_out_rows": 64,
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
            "spike_factor": 5.0,
            "save_seconds": 240.0,
        }
    )


def target_training() -> ml_collections.ConfigDict:
    """How the bundled target was trained."""
    return ml_collections.ConfigDict(
        {
            "stage": "target",
            "steps": 12800,
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
            "spike_factor": 5.0,
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
