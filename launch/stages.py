"""What several stages read from a config: the source of problems, how answers are forced, this process's share of the
work."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import ml_collections
from absl import flags

from launch import door
from specexit_jax.annotation.forcing import Forcing
from specexit_jax.annotation.schedule import ALL, Schedule
from specexit_jax.data.benchmarks import BENCHMARKS, Benchmarks, benchmarks
from specexit_jax.data.grading.grader import Grader
from specexit_jax.data.programs import require_sandbox
from specexit_jax.data.sources import Table, World
from specexit_jax.data.world.tasks import TASKS, require_task
from specexit_jax.engine import placement
from specexit_jax.engine.placement import Auto
from specexit_jax.engine.session import local_folder
from specexit_jax.evaluation.pipeline.harness import Setting
from specexit_jax.models.checkpoints.content import target_digest
from specexit_jax.notes import note
from specexit_jax.parallel.host import spare_processors
from specexit_jax.storage.shards import WHOLE, Shard, require_settings


def source_of(config: ml_collections.ConfigDict, tasks: Sequence[str] | None = None) -> World | Table | Benchmarks:
    """The benchmarks or the table that config.source names, else the reasoning world (tasks: of it, default the
    config's).

    Raises ValueError with one sentence, also if tasks of the world are chosen with another source, or programs cannot
    be run.
    """
    source = named_source(config, tasks)
    if any(table.checker == "code" for table in getattr(source, "tables", (source,)) if isinstance(table, Table)):
        require_sandbox()
    return source


def named_source(config: ml_collections.ConfigDict, tasks: Sequence[str] | None = None) -> World | Table | Benchmarks:
    """`source_of` for stages that grade nothing."""
    given = {key: value for key, value in config.source.items() if value}
    name = given.pop("name", "")
    if not name and given:
        raise ValueError(f"config.source has {', '.join(given)} but no name: give --config.source.name.")
    if not name:
        for task in tasks or config.tasks:
            require_task(task)
        return World(tuple(tasks or config.tasks))
    if tasks or tuple(config.tasks) != TASKS:
        chosen = "--tasks" if tasks else "config.tasks"
        raise ValueError(
            f"{chosen} chooses among the reasoning world's tasks, but problems come from {name}: leave it out."
        )
    names = [word.strip() for word in name.split(",")]
    return benchmarks(names, given) if names[0] in BENCHMARKS else Table(name, **given)


def require_source(config: ml_collections.ConfigDict, folder: Path) -> None:
    """Refuses a source other than that of the folder's rollouts."""
    if config.source.name:
        require_settings(folder, "rollout", {"source": named_source(config).label})


def grader_of(config: ml_collections.ConfigDict) -> Grader:
    """Judges answers in as many processes as config.grading.workers says, which start when a dear checker is first asked; ended
    when the stage ends."""
    workers = config.get("grading", {}).get("workers")
    return door.until_end(Grader(spare_processors() if workers is None else workers))


def forcing_of(config: ml_collections.ConfigDict) -> Forcing:
    """How answers are forced. Refuses a kind of confidence that the labels could not give."""
    settings = config.annotate
    if settings.confidence == "keys" and settings.request_keys < 2:
        raise ValueError("Confidence over keys needs several: give --config.annotate.request_keys=4.")
    return Forcing(
        settings.batch_size,
        settings.branches,
        settings.max_answer,
        config.rollout.max_new_tokens,
        settings.request_keys,
    )


def schedule_of(config: ml_collections.ConfigDict, split: str) -> Schedule:
    """Which boundaries of a split are forced; all of them where config.annotate.sparse_splits does not name it. Without a search
    for a T* of kind `first`, which a search finds too late in one of twenty traces."""
    settings, fields = config.annotate, ("every", "most", "search", "verify", "width")
    given = Schedule(**{name: settings[name] for name in fields if name in settings})  # refused whatever the split
    if split not in settings.get("sparse_splits", ("draft",)):
        return ALL
    if given.search and settings.kind == "first":
        note(
            "config.annotate.search finds the T* of kind stable and not always that of kind first, which config.annotate.kind asks "
            "for: answers are forced without a search."
        )
        return dataclasses.replace(given, search=False)
    return given


def setting_of(
    config: ml_collections.ConfigDict,
    methods: Sequence[str] = (),
    tasks: Sequence[str] | None = None,
    seeds: int = 1,
    batch_size: str | None = None,
    grader: Grader | None = None,
) -> Setting:
    """The settings of an evaluation from the config. batch_size: overrides the config's, as `rows_of`."""
    settings = config.evaluate
    return Setting(
        split=settings.split,
        methods=tuple(methods),
        seed=config.seed,
        batch_size=rows_of(config, batch_size or settings.batch_size),
        forcing=forcing_of(config),
        draft_tokens=settings.draft_tokens,
        latency_per_task=settings.latency_per_task,
        latency_rounds=settings.latency_rounds,
        loop_parts=settings.loop_parts,
        target=target_name(config),
        source=source_of(config, tasks).label,
        seeds=seeds,
        grader=grader,
    )


def rows_of(config: ml_collections.ConfigDict, batch_size: int | str) -> int | Auto:
    """Rows that are decoded at a time, as a flag or a key of the config says it: a number, auto, or auto:MOST."""
    return placement.rows_of(batch_size, config.get("cache_bytes"))


def target_name(config: ml_collections.ConfigDict) -> str:
    """The target's identity, the name and digest of its weights, wherever its folder is; also matches the older digest
    in workdirs of earlier versions."""
    name = Path(config.target).name
    return target_digest(local_folder(config.target, "target")).renamed(lambda digest: f"{name} {digest}")


def define_shard() -> None:
    flags.DEFINE_string("shard", None, "i/n: do part i (from 0) of n; for processes that no launcher has joined.")


def claim_share(stem: str, splits: Sequence[str], own: Shard = WHOLE) -> None:
    """Refuses a second process on the same share of STEM.jsonl in these splits; other shares may run at the same
    time."""
    door.claim(*(own.path(Path(flags.FLAGS.workdir) / split, f".{stem}", ".lock") for split in splits))


def shard() -> Shard:
    """The share that --shard names, else this process's place among those that a launcher has joined."""
    text = flags.FLAGS.shard
    if text is None:
        return Shard(jax.process_index(), jax.process_count())
    if jax.process_count() > 1:
        raise ValueError("These processes are joined and share the work by themselves: leave --shard out.")
    if not (found := re.fullmatch(r"(\d+)/(\d+)", text)):
        raise ValueError(f"--shard is i/n, as in --shard=0/8, not {text!r}.")
    return Shard(int(found[1]), int(found[2]))
