"""Trains the draft with its signals on the labelled rollouts (WORKDIR/draft_model), or the bundled target (WORKDIR/target).

python -m launch.train --config=configs/embedded.py --workdir=runs/embedded
python -m launch.train --config=configs/embedded.py:target --workdir=runs/target
bash launch/local_cluster.sh 2 launch.train --config=… --workdir=…    # over processes; for clusters see launch/

With --config.train.features=offline the target's pass over the rows is made once and kept in WORKDIR/features; its size is
told first. A draft with signals needs labels (launch.annotate), one without (--config.train.signals=none) only traces.
"""

from pathlib import Path

from absl import flags

from launch import door
from specexit_jax.annotation.documents import LabelOptions, Traces, frequent_tokens, packed
from specexit_jax.checkpoint import write_json
from specexit_jax.data.documents import Mixture
from specexit_jax.evaluation.held_out import HeldOut
from specexit_jax.models.config import TargetConfig
from specexit_jax.shards import shard_files
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.draft_run import DraftRun, draft_config, train_draft
from specexit_jax.training.feature_store import FeatureStore
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
    else:
        _draft(config, optimizer, loop, workdir)
        door.say(f"trained: {workdir / 'draft_model'}")


def _draft(config, optimizer: OptimizerConfig, loop: LoopConfig, workdir: Path) -> None:
    train = config.train
    door.known("config.train.features", train.features, ("online", "offline"))
    session = door.open_session(config)
    labelled = train.signals != "none"
    options = LabelOptions(config.annotate.kind, train.label_place, config.annotate.confidence, train.boundary_weight)
    traces = Traces(workdir / "draft", train.row_length, options, labelled)
    door.say(f"{len(traces)} traces, {traces.lengths.sum()} tokens, {traces.cut} cut to a row of {train.row_length}")
    always = (*session.end_think_ids, *session.stop_ids)
    d2t = frequent_tokens(traces.traces, session.target.vocab_size, train.draft_vocab_size, always)
    losses = DraftTrainingConfig(train.ttt_steps, train.ttt_decay, session.sampling.temperature,
                                 tuple(train.signal_weights), train.weighting)  # fmt: skip
    draft = draft_config(session.target, train.intermediate_size, train.draft_vocab_size, train.signals)
    run = DraftRun(train.batch_size, train.seed, losses, train.evaluate_every, train.init, train.signal_positions)
    model = (session.target, session.params.target, draft, d2t)
    look = None
    if train.held_out_rows and shard_files(workdir / "development", "labels" if labelled else "traces"):
        held_out = packed(Traces(workdir / "development", train.row_length, options, labelled), train.row_length)
        rows = [held_out[number] for number in range(min(train.held_out_rows, len(held_out)))]
        look = HeldOut(*model, losses, rows, train.batch_size, session.mesh)
    rows = packed(traces, train.row_length, train.seed, train.pack)
    if train.features == "offline":
        store = FeatureStore(workdir / "features", session.target, rows, train.batch_size, losses.temperature)
        door.say(store.told())
        store.write(session.params.target, session.mesh)
        rows = store.rows()
    bundle = train_draft(run, *model, rows, optimizer, loop, workdir, look, session.mesh)
    if look is not None:
        write_json(workdir / "held_out.json", look.report(bundle.params))


if __name__ == "__main__":
    door.define_config()
    door.run(main)
