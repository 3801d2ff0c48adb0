"""A small checkpoint of your own on a CPU, from rollouts to a certified exit, without overriding any setting.

The target is a Llama 3, Qwen2 or Qwen3 folder at runs/tiny_target/target whose chat template opens `<think>`. The variant `target`
trains one to try the pipeline with: 6 layers of width 96, two tasks of the reasoning world. For problems of your own, set
`--config.source.name` as in docs/pipeline.md.

C=configs/tiny_local.py; W=runs/tiny_local
python -m launch.train     --config=$C:target --workdir=runs/tiny_target   # a small target; leave it out if you have one
python -m launch.rollout   --config=$C --workdir=$W
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W --epsilon=0.05
python -m launch.evaluate  --config=$C --workdir=$W

Measured on two CPU cores that other programs used as well (load 12 to 18; expect a third of these times): target 22 minutes (6
minutes of processor time), 1,600 rollouts 3, annotation 3, draft 13, calibration 1, evaluation 9 minutes. After so short a training
the target is weak: on 200 test problems `think` is right on 20 % and writes 336 tokens. The draft's acceptance is 0.80 at each of
four steps, and the AUC of confidence on held-out rows is 0.84. The policy is certified at a risk of 5 %: 14 of 500 calibration
problems are harmed, with 63 % fewer tokens. `specexit` on the test split: 23 % right, 125 tokens.
"""

import ml_collections

from configs.embedded import get_config as embedded


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings of the pipeline; with variant `target`, those of the training of a small target."""
    if variant not in ("", "target"):
        raise ValueError(f"configs/tiny_local.py has no variant {variant!r}: choose target, or leave it out")
    config = embedded(variant)
    config.target, config.draft, config.policy = "runs/tiny_target/target", "", ""
    config.tasks = ("leg_counting", "gcd")
    if variant == "target":
        config.train.steps = 1500
        config.train.model.num_layers = 6
        config.train.optimizer.warmup_steps = 50
        return config
    config.rollout.per_task = {"draft": 300, "development": 150, "calibration": 250, "test": 100}
    config.train.steps = 300
    config.train.intermediate_size = 256
    config.train.held_out_rows = 16
    config.train.evaluate_every = 100
    config.train.optimizer.warmup_steps = 20
    config.evaluate.per_task = 100
    config.evaluate.latency_per_task = 4
    config.evaluate.loop_parts = False
    return config
