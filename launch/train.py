"""Trains the draft with its signals on the labelled rollouts (WORKDIR/draft_model), or the bundled target (WORKDIR/target).

python -m launch.train --config=configs/embedded.py --workdir=runs/embedded
python -m launch.train --config=configs/embedded.py:target --workdir=runs/target
"""

from pathlib import Path

from absl import flags

from launch import door
from specexit_jax.annotation.documents import frequent_tokens, labelled_rows
from specexit_jax.data.documents import Mixture
from specexit_jax.models.config import TargetConfig
from specexit_jax.shards import read_shards, shard_files
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.draft_run import DraftRun, draft_config, train_draft
from specexit_jax.training.loop import LoopConfig
from specexit_jax.training.optimizer import OptimizerConfig
from specexit_jax.training.target_run import TargetRun, train_target


def main() -> None:
    config = door.config()
    train, workdir = config.train, Path(flags.FLAGS.workdir)
    optimizer = OptimizerConfig(**train.optimizer, total_steps=train.steps)
    loop = LoopConfig(train.steps, train.log_every, train.save_seconds)
    if train.stage == "target":
        model = TargetConfig("qwen3", train.vocab_size, **train.model, qk_norm=True, tie_embeddings=True)
        run = TargetRun(train.per_task, train.vocab_size, Mixture(**train.mixture), train.row_length, train.batch_size,
                        train.seed, train.temperature, train.init)  # fmt: skip
        train_target(run, model, optimizer, loop, workdir)
        door.say(f"trained: {workdir / 'target'}")
        return
    session = door.open_session(config)
    traces, rows = _labelled(workdir / "draft", config)
    development = workdir / "development"
    held_out = _labelled(development, config)[1] if shard_files(development, "labels") else None
    always = (*session.end_think_ids, *session.stop_ids)
    d2t = frequent_tokens(traces, session.target.vocab_size, train.draft_vocab_size, always)
    losses = DraftTrainingConfig(train.ttt_steps, train.ttt_decay, session.sampling.temperature,
                                 tuple(train.signal_weights), train.weighting)  # fmt: skip
    draft = draft_config(session.target, train.intermediate_size, train.draft_vocab_size, train.signals)
    run = DraftRun(train.batch_size, train.seed, losses, train.evaluate_every)
    train_draft(run, session.target, session.params.target, draft, d2t, rows, optimizer, loop, workdir, held_out)
    door.say(f"trained: {workdir / 'draft_model'}")


def _labelled(folder: Path, config):
    """(traces, packed rows with labels) of one split."""
    traces = read_shards(folder, "traces")
    rows = labelled_rows(traces, read_shards(folder, "labels"), config.train.row_length,
                         config.annotate.kind, config.train.seed, config.train.boundary_weight)  # fmt: skip
    return traces, rows


if __name__ == "__main__":
    door.define_config()
    door.run(main)
