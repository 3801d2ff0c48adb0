"""Rollouts of the target on the splits of the reasoning world: WORKDIR/SPLIT/traces.jsonl.

python -m launch.rollout --config=configs/embedded.py --workdir=runs/embedded [--splits=draft,development]
Resumes where it was killed. Speculates where the config's draft exists: sampling is keyed by position, so the traces are
the same with or without it, only sooner.
"""

from pathlib import Path

from absl import flags

from launch import door
from specexit_jax.annotation.rollout import roll_out
from specexit_jax.data.splits import sample
from specexit_jax.methods import make_method

_SPLITS = flags.DEFINE_list("splits", None, "Splits to roll out; default: all that the config names.")


def main() -> None:
    config = door.config()
    if config.rollout.batch_size == 1:
        door.decode_on_one_thread()
    wanted = door.splits(_SPLITS.value, config.rollout.per_task)
    session = door.open_session(config, config.draft if config.draft and Path(config.draft).is_dir() else None)
    method = make_method(session, "eagle3" if session.draft else "think", draft_tokens=config.evaluate.draft_tokens)
    for split in wanted:
        problems = sample(split, config.rollout.per_task[split], tuple(config.tasks))
        path = Path(flags.FLAGS.workdir) / split / "traces.jsonl"
        roll_out(session, problems, method, path, config.seed, config.rollout.batch_size, config.rollout.max_new_tokens)
        door.say(f"{path}: {len(problems)} traces")


if __name__ == "__main__":
    door.define_config()
    door.run(main)
