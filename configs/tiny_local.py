"""An own small checkpoint on a CPU, from rollouts to a certified exit, with nothing to override."""

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
