"""Forced answers at every boundary of the rollouts: WORKDIR/SPLIT/labels.jsonl. Resumes where it was killed.

python -m launch.annotate --config=configs/embedded.py --workdir=runs/embedded [--splits=draft,development]
"""

from pathlib import Path

from absl import flags

from launch import door
from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.world_statistics import world_statistics
from specexit_jax.jsonl import read_jsonl

_SPLITS = flags.DEFINE_list("splits", None, "Splits to annotate; default: all that the config names.")


def main() -> None:
    config = door.config()
    wanted = door.splits(_SPLITS.value, config.rollout.per_task)
    session = door.open_session(config)
    for split in wanted:
        folder = Path(flags.FLAGS.workdir) / split
        annotate(
            session,
            folder / "traces.jsonl",
            folder / "labels.jsonl",
            config.annotate.kinds,
            config.annotate.batch_size,
            config.annotate.max_answer,
            config.rollout.max_new_tokens,
        )
        statistics = world_statistics(
            list(read_jsonl(folder / "traces.jsonl")), list(read_jsonl(folder / "labels.jsonl"))
        )
        door.say(f"{folder}: " + ", ".join(f"{name} {value:.4g}" for name, value in statistics.items()))


if __name__ == "__main__":
    door.define_config()
    door.run(main)
