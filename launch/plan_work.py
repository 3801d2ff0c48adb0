"""What launch.plan reads from a config: the sizes of an experiment."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import ml_collections

from launch import scores, stages
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


def assumed_of(config: ml_collections.ConfigDict, given: Mapping[str, float], preset: str | None = None) -> Assumed:
    """What is assumed of the traces: `given`, and for the rest the defaults, as far as the config's limits and the target's context
    let traces be like that. Raises ValueError where given ones cannot be the mean of what the config allows."""
    most, context = config.rollout.max_new_tokens, target_of(config, preset).max_position
    default = Assumed()
    for name, value in given.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"--{name} must be a number from 0 on, not {value}.")
    prompt = given.get("prompt", min(default.prompt, context // 4))
    if prompt >= context:
        raise ValueError(f"--prompt={prompt} fills the target's context of {context} tokens.")
    most = min(most, context - prompt)
    answer = given.get("answer", min(default.answer, config.annotate.max_answer, -(-most // 4)))
    thinking = given.get("thinking", min(default.thinking, max(most // 3, 1)))
    if thinking + answer > most:
        raise ValueError(
            f"Thinking of {thinking} tokens and an answer of {answer} are more than the {most} that a trace may have: see "
            "--thinking, --answer and config.rollout.max_new_tokens."
        )
    less = {
        "boundaries": min(default.boundaries, -(-thinking // 10)),
        "accept_length": min(default.accept_length, 1.0 + config.evaluate.draft_tokens),
        "pair_seconds": pair_seconds(config),
    }
    return Assumed(**less | {"prompt": prompt, "answer": answer, "thinking": thinking} | given)


def work_of(config: ml_collections.ConfigDict, assumed: Assumed, preset: str | None = None) -> Work:
    """What the stages of the config do. preset: the sizes of its target, by name."""
    train, rollout, annotate, evaluate = config.train, config.rollout, config.annotate, config.evaluate
    if train.stage != "draft":
        raise ValueError("A plan is of a draft's experiment, but this config trains a target: leave its variant out.")
    _require_numbers(config)
    target = dataclasses.replace(target_of(config, preset), row_attention=train.row_attention)
    names = config.source.name.split(",") if config.source.name else ()
    parts = 1 if names else len(config.tasks)  # of a split that is counted by task
    draft = make_config(
        train.kind, target, train.family, train.intermediate_size, train.draft_vocab_size, train.signals,
        train.sliding_window, draft_signals(),
    )  # fmt: skip
    target = draft.reading(target)
    splits = {name: count * parts * rollout.samples for name, count in rollout.per_task.items()}
    evaluated = evaluate.per_task * parts
    tested = splits.pop(evaluate.split, evaluated)
    losses = DraftTrainingConfig(train.ttt_steps, teacher_chunk=train.chunk, loss_chunk=train.chunk, remat=train.remat)
    scored = {config.calibrate.split, config.calibrate.certify_on, *scores.split_of(config)}
    cache_bytes = config.get("cache_bytes")
    sizes = {axis: tuple(mesh[name] for name in ("data", "fsdp", "tensor")) for axis, mesh in _meshes(config).items()}
    return Work(
        target=target,
        draft=draft,
        traces=splits,
        tested=tested,
        evaluated=evaluated,
        tasks=len(names) or len(config.tasks),
        max_new_tokens=rollout.max_new_tokens,
        mesh=sizes["decoding"],
        rollout_rows=rows_of(rollout.batch_size, cache_bytes),
        drafted=evaluate.draft_tokens,
        annotate_rows=annotate.batch_size,
        branches=annotate.branches,
        max_answer=annotate.max_answer,
        keys=annotate.request_keys,
        forced={split: _forced(config, split, assumed) for split in (*splits, "test")},
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


def _require_numbers(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError on a number that no stage could work with."""
    stages.forcing_of(config)
    least_one = {
        "rollout": ("max_new_tokens", "samples"),
        "train": ("steps", "batch_size", "row_length", "ttt_steps", "chunk"),
        "evaluate": ("per_task",),
    }
    counts = {f"{stage}.{name}": config[stage][name] for stage, names in least_one.items() for name in names}
    counts |= {f"rollout.per_task.{split}": count for split, count in config.rollout.per_task.items()}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"config.{name} must be at least 1, not {count}.")


def _forced(config: ml_collections.ConfigDict, split: str, assumed: Assumed) -> int:
    """Boundaries of a trace of the split at which answers are forced."""
    schedule = stages.schedule_of(config, split)
    may_be = len(schedule.of(range(assumed.boundaries)))
    return min(assumed.searched, may_be) if schedule.search else may_be


def pair_seconds(config: ml_collections.ConfigDict) -> float:
    """Seconds that the dearest checker of the config's source takes to judge a pair."""
    names = config.source.name.split(",") if config.source.name else ()
    if not names:
        return 0.0
    given = config.source.checker or "math"
    kinds = [table.checker for name in names for table in BENCHMARKS.get(name.strip(), ())] or [given]
    return max(PAIR_SECONDS.get(kind, 0.0) for kind in kinds)
