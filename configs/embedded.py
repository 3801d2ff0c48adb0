"""The default experiment: a small bundled reasoning model on the reasoning world. Everything runs on two CPU cores.

Variants: `embedded.py` (draft training, calibration, evaluation), `:target` (trains the bundled target itself),
`:demo` (what launch/demo.sh evaluates).

The bundled target has 16 layers of width 96 (1.7 M parameters). It was trained for 12,806 steps of 4 rows of 512 tokens (26.2 M
tokens, 20.4 M of them with a loss) with Muon and linear decay, on a CPU with two cores (0.45 s a step). There were three runs.
The first two used earlier versions of the world's traces, the last one the present version:

1. From scratch: 6,000 steps at learning rates 1.6e-2 (Muon) and 3e-3 (Adam), to the end of the decay. Traces with 35 % slips,
   without numbered people and without mended traces. Loss 3.1 at step 50, 0.36 at 600, 0.22 at 1,200, 0.16 at 3,000, 0.09 at 4,200,
   0.08 at the end.
2. From the result of 1: 1,806 of 4,600 planned steps at 1e-2 and 2e-3, with 35 % slips. Loss 0.27 at step 50, 0.09 at the end.
3. From the result of 2: 5,000 steps at 1e-2 and 2e-3, to the end of the decay, on the present world. Loss 0.09 at step 2,000,
   0.083 at 4,000, 0.07 at the end.

`:target` trains such a model in one run: as many steps from scratch, at the rates of run 1. `--config.train.init=FOLDER`
continues from a folder, as runs 2 and 3 did.

The bundled draft was trained with this config: 1,800 steps of 4 rows of 1,024 tokens on 4,800 labelled traces, about 1 s a step
on two cores. Then its signal heads were solved to their optimum on the 88,123 boundary tokens (200 s; training/signal_fit.py).
On held-out rows its acceptance is 0.97 at each of the four steps that it was trained for. Chains in the last quarter of a trace
are 1.03 times as long as in the first. The AUC of confidence on development boundaries is 0.948 (on the held-out rows 0.958
before the solution, 0.960 after it). Earlier drafts had width 256 and 1,200 steps. With signals at `fc`: AUC 0.916 (0.87 before
the solution), acceptance 0.94. With signals at `draft` and signal weights of 1: AUC 0.941, acceptance 0.91. In so narrow a
layer the token loss needs the larger weight.

The network of the bundled exit score was fitted on 20,340 traces, three of each of 6,780 problems of the draft split
(docs/score.md, with the learning curve).

The place of labels, compared with signals at `fc` solved on 29,117 boundary tokens and scored on 13,661 development boundaries:
AUC of confidence 0.913 with labels of the token's own paragraph end, 0.845 with those of the next boundary. Solved on the
tokens between boundaries as well: 0.898 and 0.869.
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
    """The settings of the experiment. variant: "", "target" or "demo". `--config.KEY=VALUE` overrides a value."""
    if variant not in ("", "target", "demo"):
        raise ValueError(f"configs/embedded.py has no variant {variant!r}: choose target or demo, or leave it out")
    config = ml_collections.ConfigDict(
        {
            "target": str(ASSETS / "target"),
            "draft": str(ASSETS / "draft"),
            "policy": str(ASSETS / "policy.json"),
            # data type of weights and computation; how a step reads the caches (xla, or pallas: kernels for TPUs and GPUs); devices
            # on each mesh axis (one may be -1: all that are left)
            "dtype": "float32",
            "attention": "xla",
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "tasks": TASKS,
            # where problems come from. Without a name: the reasoning world. With one: benchmarks (specexit_jax/data/benchmarks.py)
            # or a table on the hub or on disk; data/sources.py has the defaults of empty values
            "source": dict.fromkeys(SOURCE, ""),
            "seed": 0,
            # of a device, for the rows of batch_size=auto; None: what is free there
            "cache_bytes": config_dict.placeholder(int),
            # of all stages; None: as the target's generation_config.json says
            "sampling": {
                "temperature": config_dict.placeholder(float),
                "top_k": config_dict.placeholder(int),
                "top_p": config_dict.placeholder(float),
                "min_p": config_dict.placeholder(float),
                "repetition_penalty": config_dict.placeholder(float),
            },
            # processes that dear checkers (math, choice, code) run in; None: processors less one; 0: the process that decodes
            "grading": {"workers": config_dict.placeholder(int)},
            # per_task: problems of each split (reasoning world: of each task and split); samples: traces of each problem
            "rollout": {
                "per_task": {"draft": 800, "development": 400, "calibration": 1000, "test": 1000},
                # rows that are decoded at a time: a number, auto (as many as fit, up to 64) or auto:MOST (docs/scale.md); on a CPU
                # a single row decodes 2 to 3 times as many tokens per second as a batch, on an accelerator use auto
                "batch_size": config_dict.FieldReference(1, field_type=int | str),
                "max_new_tokens": 880,
                "samples": 1,
            },
            # batch_size: traces at a time; branches: boundaries of each at a time; max_answer: the most tokens of a forced answer;
            # kind: of T* (stable or first); kinds: of boundaries; request_keys: answers forced at each boundary; confidence: its
            # label (one, keys or deer). Of the splits in sparse_splits alone: every, most: one boundary in so many, and at most
            # so many of a trace (0: no limit); search: force few boundaries, those that the search for T* asks for, and
            # `verify` of them after it, `width` at a time
            "annotate": {
                "batch_size": 8,
                "branches": 8,
                "max_answer": 16,
                "kind": "stable",
                "kinds": ("paragraph",),
                "request_keys": 1,
                "confidence": "one",
                "every": 1,
                "most": 0,
                "search": False,
                "verify": 1,
                "width": 2,
                "sparse_splits": ("draft",),
            },
            "train": draft_training(),
            "calibrate": calibration(),
            "evaluate": {
                "split": "test",
                "methods": (*METHODS, "ceiling"),
                "ceiling_boundaries": 100_000,  # the most that the ceiling is fitted on; fewer where features take more than 2 GiB
                "per_task": 1000,
                "latency_per_task": 8,
                "latency_rounds": 3,
                "loop_parts": True,  # time prefill, verify, draft, exit and host apart, and acceptance by position; takes minutes
                "draft_tokens": 3,
                "batch_size": config_dict.FieldReference(1, field_type=int | str),
            },
            # per_task: problems of each task; seeds: of each problem; released: scores of the released rule; draft: a second draft
            # whose signals are read at the other place
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
    """The settings of calibration."""
    return ml_collections.ConfigDict(
        {
            "split": "development",
            # Without --epsilon: the accuracy that may be lost, and the number of its standard errors that are kept as a margin,
            # because the best of thousands of settings looks better than it is.
            "bound": 0.005,
            "standard_errors": 1.0,
            "smoothers": ("none", "ewma", "boundary_ewma", "mean", "momentum", "paragraph_mean", "score"),
            # Where `score` is among the smoothers: the split that its network is fitted on, how (training/score_fit.py), and the
            # parts of the statistics that it does not read (exits/trace_statistics.py). policy: a policy file whose network is
            # taken instead, for another risk of the same score
            "score": {"split": "draft", "hidden": 128, "epochs": 40, "without": (), "policy": ""},
            # With --epsilon: the split that is tested, the signals to exit by, the thinking tokens after which every boundary is
            # an exit (0: no budget), and the risks of frontier.json.
            "certify_on": "calibration",
            "signals": ("confidence", "progress", "remain"),
            "budget": 0,
            "frontier": (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05),
        }
    )


def draft_training() -> ml_collections.ConfigDict:
    """The settings with which the bundled draft was trained."""
    return ml_collections.ConfigDict(
        {
            "stage": "draft",
            # eagle3, or mtp: a layer of the target's own architecture, with the conventions of a family (docs/mtp.md)
            "kind": "eagle3",
            "family": "",
            "steps": 1800,
            "batch_size": 4,
            "row_length": 1024,
            "seed": 0,
            "draft_vocab_size": 512,
            "intermediate_size": 384,
            # where the signals are read (docs/method.md §1): draft (the draft layer's output, which depends on the whole trace) or
            # fc (the fused features, as in the released code)
            "signals": "draft",
            "ttt_steps": 4,
            "ttt_decay": 0.8,
            "signal_weights": (0.3, 0.1, 0.1),
            "label_place": "paragraph_end",
            "boundary_weight": 16.0,
            # pack: several documents in a row; features: of the target, computed in every step (online) or once and stored
            "pack": True,
            "features": "online",
            # the devices of all processes; the mesh changes neither the global batch nor the loss
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            # init: random, target (its head and norm) or builtin (the MTP layer in the target's checkpoint); learn: all, or signals
            "init": "random",
            "learn": "all",
            # for long rows: sliding_window: tokens that the draft attends to (0: all); row_attention: see models/row_attention.py;
            # chunk: tokens whose logits are computed at a time; remat: recompute layers in the backward pass
            "sliding_window": 0,
            "row_attention": "auto",
            "chunk": 1024,
            "remat": False,
            # of the fit of the signals at the end: the most boundary tokens, and the most tokens that the target reads for them
            "signal_positions": 200_000,
            "signal_tokens": 100_000_000,
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
    """The settings with which such a target is trained."""
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
