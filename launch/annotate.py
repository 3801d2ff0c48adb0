"""Forced answers at every boundary of the rollouts: WORKDIR/SPLIT/labels.jsonl, and annotate.json on what they took.

python -m launch.annotate --config=configs/embedded.py --workdir=runs/embedded [--splits=draft,development] [--shard=0/8]
--config.annotate.request_keys=4 answers every boundary under 4 request keys, for --config.annotate.confidence=keys.
Sharded and resumed as launch.rollout is.
"""

from pathlib import Path

from absl import flags

from launch import door, stages
from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.world_statistics import world_statistics
from specexit_jax.shards import read_shards

_SPLITS = flags.DEFINE_list("splits", None, "Splits to annotate; default: all that the config names.")


def main() -> None:
    config, shard = door.config(), stages.shard()
    wanted, forcing = door.splits(_SPLITS.value, config.rollout.per_task), stages.forcing_of(config)
    stages.claim_share("labels", wanted, shard)
    session = door.open_session(config)
    for split in wanted:
        folder = Path(flags.FLAGS.workdir) / split
        took = annotate(session, folder, config.annotate.kinds, forcing, shard, stages.target_name(config))
        door.say(
            f"{folder}: {took['boundaries']} boundaries, {1e3 * took['seconds_a_boundary']:.2f} ms each; {took['tokens']} "
            f"tokens forced in {took['computed']} computed rows; the prefix read {took['reads']} times, "
            f"{took['read_tokens']} tokens of it; {took['unfinished'].told()}"
        )
        if shard.count == 1 and not config.source.name:
            statistics = world_statistics(read_shards(folder, "traces"), read_shards(folder, "labels"))
            door.say(f"{folder}: " + ", ".join(f"{name} {value:.4g}" for name, value in statistics.items()))


if __name__ == "__main__":
    stages.define_shard()
    door.define_config()
    door.run(main)
