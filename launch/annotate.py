"""Forces answers at every boundary of the rollouts: WORKDIR/SPLIT/labels.jsonl, and annotate.json with settings and
cost.

python -m launch.annotate --config=configs/embedded.py --workdir=runs/embedded [--splits=draft,development] [--shard=0/8]
--config.annotate.search=True forces few boundaries of the splits in config.annotate.sparse_splits: those around T*.
--config.annotate.request_keys=4 answers every boundary under 4 request keys, for --config.annotate.confidence=keys.
Sharded and resumed as launch.rollout is.
"""

from pathlib import Path

from absl import flags

from launch import checks, door, loading, stages
from specexit_jax.annotation.annotate import annotate, require_alike
from specexit_jax.annotation.world_statistics import split_statistics
from specexit_jax.data.splits import SPLITS
from specexit_jax.storage.shards import require_settings

_SPLITS = flags.DEFINE_list(
    "splits", None, "Splits to annotate, separated by commas; default: those of config.rollout.per_task."
)


def check():
    """Returns the config, the splits, how answers are forced, and the source of the traces."""
    config = door.config()
    wanted, source = door.splits(_SPLITS.value, config.rollout.per_task), stages.source_of(config).label
    checks.names_of(config)
    forcing = stages.forcing_of(config)
    for name in config.annotate.get("sparse_splits", ()):
        door.known("config.annotate.sparse_splits", name, tuple(SPLITS))
    for split in wanted:
        stages.schedule_of(config, split)
        folder = Path(flags.FLAGS.workdir) / split
        checks.rows(folder, "traces")
        require_settings(folder, "rollout", {"source": source, "max_new_tokens": forcing.max_new_tokens})
    return config, wanted, forcing, source


def main() -> None:
    shard = stages.shard()
    stages.claim_share("labels", door.splits(_SPLITS.value, door.config().rollout.per_task), shard)
    config, wanted, forcing, source = check()
    grader = stages.grader_of(config)
    session, name = loading.open_session(config), stages.target_name(config)
    folders = [Path(flags.FLAGS.workdir) / split for split in wanted]
    for folder in folders:
        require_alike(
            session, folder, config.annotate.kinds, forcing, name, source, stages.schedule_of(config, folder.name)
        )
    for folder in folders:
        schedule = stages.schedule_of(config, folder.name)
        took = annotate(session, folder, config.annotate.kinds, forcing, shard, name, source, grader, schedule=schedule)
        few = "" if schedule.whole else f" of {took['boundaries'] + took['unforced']} ({schedule.text()})"
        door.say(
            f"{folder}: {took['boundaries']} boundaries{few}, {1e3 * took['seconds_a_boundary']:.2f} ms each; {took['tokens']} "
            f"tokens forced in {took['computed']} computed rows; the prefix read {took['reads']} times, "
            f"{took['read_tokens']} tokens of it; {took['unfinished'].summary()}"
        )
        if shard.count == 1 and not config.source.name:
            if statistics := split_statistics(session, folder):
                door.say(f"{folder}: " + ", ".join(f"{name} {value:.4g}" for name, value in statistics.items()))


if __name__ == "__main__":
    stages.define_shard()
    door.define_config()
    door.run(main)
