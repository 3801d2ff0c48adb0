"""An own small checkpoint on a CPU, from rollouts to a certified exit, with nothing to override.

The target is any Llama 3, Qwen2 or Qwen3 folder at runs/tiny_target/target whose chat template opens `<think>`. Variant `target`
trains one to try the pipeline on: 6 layers of 96, two tasks of the reasoning world. With problems of your own, set
`--config.source.name` as docs/pipeline.md says.

C=configs/tiny_local.py; W=runs/tiny_local
python -m launch.train     --config=$C:target --workdir=runs/tiny_target   # a small target; leave it out if you have one
python -m launch.rollout   --config=$C --workdir=$W
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W --epsilon=0.05
python -m launch.evaluate  --config=$C --workdir=$W

Obtained on two CPU cores that other work kept busy (a load of 12 to 18; expect a third of these times): target 22 minutes (6
minutes of processor time), 1,600 rollouts 3, annotation 3, draft 13, calibration 1, evaluation 9 minutes. So short a training makes
a weak target: on 200 test problems it is right on 20 % and writes 336 tokens (`think`). Its draft accepts 0.80 at each of four
steps, and the AUC of confidence on held-out rows is 0.84. Certified at 5 %: 14 of 500 calibration problems harmed, 63 % fewer
tokens there. `specexit` on test: 23 % right, 125 tokens.
"""

import ml_collections

from configs.embedded import get_config as embedded


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The pipeline of a draft; variant `target`: the training of the small target that it is tried on."""
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
