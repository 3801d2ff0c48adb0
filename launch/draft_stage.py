"""The draft's training as a config describes it: rows, sizes, losses."""

import dataclasses
from pathlib import Path

import ml_collections

from launch import door, loading, stages
from specexit_jax.annotation.documents import LabelOptions, Traces, frequent_tokens, packed
from specexit_jax.annotation.kinds import require_kinds
from specexit_jax.annotation.material import summary
from specexit_jax.data.packing import PackedRows
from specexit_jax.engine.session import BUILTIN, Session, with_draft
from specexit_jax.evaluation.held_out import HeldOut
from specexit_jax.exits.signals import draft_signals
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import make_config
from specexit_jax.parallel.distributed import is_first
from specexit_jax.storage.checkpoint import write_json
from specexit_jax.storage.shards import require_settings, shard_files
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.draft_run import DraftRun, train_draft
from specexit_jax.training.feature_store import FeatureStore
from specexit_jax.training.flops import draft_step_flops
from specexit_jax.training.loop import LoopConfig
from specexit_jax.training.optimizer import OptimizerConfig


def train_on_traces(
    config: ml_collections.ConfigDict, optimizer: OptimizerConfig, loop: LoopConfig, workdir: Path
) -> None:
    """Trains WORKDIR/draft_model on the traces of WORKDIR/draft; evaluations on those of WORKDIR/development go to
    held_out.json."""
    train = config.train
    session = loading.open_training_session(config)
    require_settings(workdir / "draft", "rollout", {"sampling": session.sampling.settings()})
    target = dataclasses.replace(session.target, row_attention=train.row_attention)
    traces = _traces(config, session, workdir / "draft")
    door.say(summary(traces))
    always = (*session.end_think_ids, *session.stop_ids)
    draft, layer = described(train, target), None
    if train.init == "builtin":
        draft, layer = builtin(session, draft)
    target = draft.reading(target)
    d2t = frequent_tokens(traces.traces, target.vocab_size, draft.draft_vocab_size, always)
    losses = DraftTrainingConfig(
        train.ttt_steps, train.ttt_decay, session.sampling.temperature, tuple(train.signal_weights), train.weighting,
        teacher_chunk=train.chunk, loss_chunk=train.chunk, remat=train.remat,
    )  # fmt: skip
    budget = train.signal_positions, train.signal_tokens
    run = DraftRun(train.batch_size, train.seed, losses, train.evaluate_every, train.init, *budget, train.learn)
    model = (target, session.params.target, draft, d2t)
    rows = packed(traces, train.row_length, train.seed, train.pack)
    held_out = _held_out(config, session, workdir / "development")
    look = _look(config, session, model, losses, held_out)
    if look is not None and look.summary:
        door.say(look.summary)
    if train.features == "offline":
        name = stages.target_name(config)
        store = FeatureStore(workdir / "features", target, rows, train.batch_size, losses, name)
        door.say(store.summary())
        store.write(session.params.target, session.mesh)
        rows = store.rows()
    online = train.features == "online"
    flops = draft_step_flops(target, draft, train.batch_size, train.row_length, train.ttt_steps, online)
    loop = dataclasses.replace(loop, flops_per_step=flops)
    bundle = train_draft(run, *model, rows, optimizer, loop, workdir, look, session.mesh, held_out, layer)
    if look is not None:
        found = look.report(bundle.params)
        if is_first():
            write_json(workdir / "held_out.json", found)


def described(train: ml_collections.ConfigDict, target: TargetConfig) -> DraftConfig:
    """The draft that the config's training makes for a target."""
    sizes = train.intermediate_size, train.draft_vocab_size, train.signals, train.sliding_window
    return make_config(train.kind, target, train.family, *sizes, draft_signals())


def builtin(session: Session, wanted: DraftConfig) -> tuple[DraftConfig, dict]:
    """(the layer in the target's checkpoint with the signals of `wanted`, its parameters)."""
    found = with_draft(session, BUILTIN)
    if found.draft.kind != wanted.kind:
        raise ValueError(
            f"The target's own layer is of the kind {found.draft.kind!r}: set train.kind, not {wanted.kind!r}."
        )
    if found.draft.own_embedding:
        raise ValueError(
            "The target's own layer has a table of tokens of its own, which training would not read: use another init."
        )
    told = {name: getattr(wanted, name) for name in ("signals", "signal_names", "sliding_window", "row_attention")}
    return dataclasses.replace(found.draft, **told), found.params.draft


def _traces(config: ml_collections.ConfigDict, session: Session, folder: Path) -> Traces:
    train, kinds = config.train, tuple(config.annotate.kinds)
    if labelled := train.signals != "none":
        require_kinds(folder, kinds)
    options = LabelOptions(config.annotate.kind, train.label_place, config.annotate.confidence, train.boundary_weight)
    return Traces(folder, train.row_length, options, labelled, session.boundaries(kinds) if labelled else None)


def _held_out(config: ml_collections.ConfigDict, session: Session, folder: Path) -> PackedRows | None:
    """The rows of held-out traces; None if there are none, or they are switched off."""
    train = config.train
    if not train.held_out_rows or not shard_files(folder, "traces" if train.signals == "none" else "labels"):
        return None
    return packed(_traces(config, session, folder), train.row_length, train.seed)


def _look(
    config: ml_collections.ConfigDict, session: Session, model: tuple, losses, rows: PackedRows | None
) -> HeldOut | None:
    """The evaluation on held-out rows; None if there are none."""
    train = config.train
    if rows is None:
        return None
    chosen = [rows[number] for number in range(min(train.held_out_rows, len(rows)))]
    return HeldOut(*model, losses, chosen, train.batch_size, session.mesh)
