"""What several stages read off a config: where problems come from, how answers are forced, which part of the work is ours."""

import re
from collections.abc import Sequence
from pathlib import Path

import jax
import ml_collections
from absl import flags

from specexit_jax.annotation.forcing import Forcing
from specexit_jax.data.benchmarks import BENCHMARKS, Benchmarks, benchmarks
from specexit_jax.data.programs import require_sandbox
from specexit_jax.data.sources import Table, World
from specexit_jax.data.tasks import require_task
from specexit_jax.session import digest_of, local_folder
from specexit_jax.shards import Shard


def source_of(config: ml_collections.ConfigDict, tasks: Sequence[str] | None = None) -> World | Table | Benchmarks:
    """The benchmarks or the table that config.source names, else the world (tasks: of it, default the config's)."""
    given = {key: value for key, value in config.source.items() if value}
    name = given.pop("name", "")
    if not name and given:
        raise ValueError(f"config.source has {', '.join(given)} but no name: give --config.source.name.")
    if not name:
        for task in tasks or config.tasks:
            require_task(task)
        return World(tuple(tasks or config.tasks))
    names = [word.strip() for word in name.split(",")]
    source = benchmarks(names, given) if names[0] in BENCHMARKS else Table(name, **given)
    if any(table.checker == "code" for table in getattr(source, "tables", (source,))):
        require_sandbox()
    return source


def forcing_of(config: ml_collections.ConfigDict) -> Forcing:
    """How answers are forced; refuses a confidence that the labels could not give."""
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


def target_name(config: ml_collections.ConfigDict) -> str:
    """The target's name and the digest of its weights, wherever its folder lies."""
    return f"{Path(config.target).name} {digest_of(local_folder(config.target, 'target'))}"


def define_shard() -> None:
    flags.DEFINE_string(
        "shard", None, "i/n: this process does part i (from 0) of n, where no launcher has joined them."
    )


def shard() -> Shard:
    """The part that --shard names, else this process's place among those that a launcher has joined."""
    text = flags.FLAGS.shard
    if text is None:
        return Shard(jax.process_index(), jax.process_count())
    if jax.process_count() > 1:
        raise ValueError("These processes are joined and share the work by themselves: leave --shard out.")
    if not (found := re.fullmatch(r"(\d+)/(\d+)", text)):
        raise ValueError(f"--shard is i/n, as in --shard=0/8, not {text!r}.")
    return Shard(int(found[1]), int(found[2]))
