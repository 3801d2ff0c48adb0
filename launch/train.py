"""Trains the draft with its signals on the labelled rollouts (WORKDIR/draft_model), or the bundled target (WORKDIR/target).

python -m launch.train --config=configs/embedded.py --workdir=runs/embedded
python -m launch.train --config=configs/embedded.py:target --workdir=runs/target
bash launch/local_cluster.sh 2 launch.train --config=… --workdir=…    # over processes; for clusters see launch/

With --config.train.features=offline the target's pass over the rows is computed once and stored in WORKDIR/features;
its size is reported first. A draft with signals needs labels (launch.annotate), one without
(--config.train.signals=none) only traces.
"""

from pathlib import Path

from absl import flags

from launch import checks, door, stages
from launch.draft_stage import train_on_traces
from specexit_jax.annotation.kinds import require_searched_for
from specexit_jax.data.documents import Mixture
from specexit_jax.models.config import SIGNAL_PLACEMENTS, TargetConfig
from specexit_jax.models.draft import KINDS
from specexit_jax.training.loop import LoopConfig
from specexit_jax.training.optimizer import OptimizerConfig
from specexit_jax.training.target_run import TargetRun, train_target


def check():
    """Returns the config. Refuses to train a draft without rows."""
    config = door.config()
    if config.train.stage == "draft":
        folder = Path(flags.FLAGS.workdir) / "draft"
        door.known("config.train.features", config.train.features, ("online", "offline"))
        door.known("config.train.signals", config.train.signals, SIGNAL_PLACEMENTS)
        door.known("config.train.kind", config.train.kind, KINDS)
        if config.train.signals == "none":
            checks.rows(folder, "traces")
        else:
            checks.annotated(folder, whole=False)
            require_searched_for(folder, config.annotate.kind)
        stages.require_source(config, folder)
    return config


def main() -> None:
    door.claim_stage("train")
    config = check()
    train, workdir = config.train, Path(flags.FLAGS.workdir)
    optimizer = OptimizerConfig(**train.optimizer, total_steps=train.steps)
    loop = LoopConfig(train.steps, train.log_every, train.save_seconds, spike_factor=train.spike_factor)
    if train.stage == "draft":
        train_on_traces(config, optimizer, loop, workdir)
        door.say(f"trained: {workdir / 'draft_model'}")
        return
    door.alone("training the bundled target")
    model = TargetConfig("qwen3", train.vocab_size, **train.model, qk_norm=True, tie_embeddings=True)
    run = TargetRun(train.per_task, train.vocab_size, Mixture(**train.mixture), train.row_length, train.batch_size,
                    train.seed, train.temperature, train.init)  # fmt: skip
    train_target(run, model, optimizer, loop, workdir)
    door.say(f"trained: {workdir / 'target'}")


if __name__ == "__main__":
    door.define_config()
    door.run(main)
