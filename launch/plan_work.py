"""What launch.plan reads from a config: the sizes of an experiment."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import ml_collections

from launch import scores
from specexit_jax.data.benchmarks import BENCHMARKS
from specexit_jax.engine.placement import rows_of
from specexit_jax.exits.signals import draft_signals
from specexit_jax.models.checkpoints.hf import load_target_config
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.draft import make_config
from specexit_jax.sizing.plan import Assumed, Work
from specexit_jax.sizing.presets import PUBLISHED, TARGETS
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.optimizer import OptimizerConfig

PAIR_SECONDS = {
    "math": 0.01,
    "choice": 0.002,
    "code": 1.0,
}  # that a checker takes to judge a pair; others: microseconds


def target_of(config: ml_collections.ConfigDict, preset: str | None = None) -> TargetConfig:
    """The sizes of the config's target, without its weights. Raises ValueError where nothing tells them."""
    name = preset or PUBLISHED.get(config.target)
    if name:
        return dataclasses.replace(TARGETS[name], dtype=config.dtype)
    if (Path(config.target) / "config.json").is_file():
        return load_target_config(config.target, config.dtype)
    raise ValueError(
        f"{config.target} is no folder with a config.json, and its sizes are not known: give --preset={'|'.join(TARGETS)}, the "
        "nearest, or --config.target=FOLDER."
    )


def work_of(config: ml_collections.ConfigDict, assumed: Assumed, preset: str | None = None) -> Work:
    """What the stages of the config do. preset: the sizes of its target, by name."""
    train, rollout, annotate, evaluate = config.train, config.rollout, config.annotate, config.evaluate
    if train.stage != "draft":
        raise ValueError("A plan is of a draft's experiment, but this config trains a target: leave its variant out.")
    target = dataclasses.replace(target_of(config, preset), row_attention=train.row_attention)
    names = config.source.name.split(",") if config.source.name else ()
    parts = 1 if names else len(config.tasks)  # of a split that is counted by task
    draft = make_config(
        train.kind, target, train.family, train.intermediate_size, train.draft_vocab_size, train.signals,
        train.sliding_window, draft_signals(),
    )  # fmt: skip
    target = draft.reading(target)
    splits = {name: count * parts * rollout.samples for name, count in rollout.per_task.items()}
    tested = splits.pop(evaluate.split, evaluate.per_task * parts)
    losses = DraftTrainingConfig(train.ttt_steps, teacher_chunk=train.chunk, loss_chunk=train.chunk, remat=train.remat)
    scored = {config.calibrate.split, config.calibrate.certify_on, *scores.split_of(config)}
    cache_bytes = config.get("cache_bytes")
    sizes = {axis: tuple(mesh[name] for name in ("data", "fsdp", "tensor")) for axis, mesh in _meshes(config).items()}
    return Work(
        target=target,
        draft=draft,
        traces=splits,
        tested=tested,
        tasks=len(names) or len(config.tasks),
        max_new_tokens=rollout.max_new_tokens,
        mesh=sizes["decoding"],
        rollout_rows=rows_of(rollout.batch_size, cache_bytes),
        drafted=evaluate.draft_tokens,
        annotate_rows=annotate.batch_size,
        branches=annotate.branches,
        max_answer=annotate.max_answer,
        keys=annotate.request_keys,
        forced={split: _forced(annotate, split, assumed) for split in (*splits, "test")},
        scored=tuple(sorted(scored)),
        steps=train.steps,
        train_rows=train.batch_size,
        row_length=train.row_length,
        train_mesh=sizes["training"],
        losses=losses,
        optimizer=OptimizerConfig(**train.optimizer, total_steps=train.steps),
        learn=train.learn,
        online=train.features == "online",
        signal_positions=train.signal_positions,
        evaluate_rows=rows_of(evaluate.batch_size, cache_bytes),
        methods=tuple(evaluate.methods),
        timed=evaluate.latency_per_task,
        rounds=evaluate.latency_rounds,
    )


def _meshes(config: ml_collections.ConfigDict) -> dict[str, Mapping[str, int]]:
    return {"decoding": config.mesh, "training": config.train.mesh}


def _forced(annotate: ml_collections.ConfigDict, split: str, assumed: Assumed) -> float:
    """Boundaries of a trace of the split at which answers are forced."""
    if split not in annotate.get("sparse_splits", ()):
        return assumed.boundaries
    if annotate.get("search", False):
        return min(assumed.searched, assumed.boundaries)
    forced = -(-assumed.boundaries // annotate.get("every", 1))
    return min(forced, annotate.get("most", 0) or forced)


def pair_seconds(config: ml_collections.ConfigDict) -> float:
    """Seconds that the dearest checker of the config's source takes to judge a pair."""
    names = config.source.name.split(",") if config.source.name else ()
    if not names:
        return 0.0
    given = config.source.checker or "math"
    kinds = [table.checker for name in names for table in BENCHMARKS.get(name.strip(), ())] or [given]
    return max(PAIR_SECONDS.get(kind, 0.0) for kind in kinds)
