"""Chooses smoothing and thresholds of the exit by grid on the development split: WORKDIR/policy.json.

python -m launch.calibrate --config=configs/embedded.py --workdir=runs/embedded
The draft is WORKDIR/draft_model where training left one there, else the config's.
"""

from pathlib import Path

from absl import flags

from launch import door
from specexit_jax.annotation.replay import outcomes
from specexit_jax.evaluation.harness import extracted
from specexit_jax.exits.calibration import choose_thresholds, threshold_grid
from specexit_jax.exits.policy_file import PolicyFile, save_policy
from specexit_jax.exits.smoothers import smoother_named
from specexit_jax.models.draft import DraftBundle
from specexit_jax.shards import read_shards


def main() -> None:
    door.alone("calibration")
    door.claim_stage("calibrate")
    config = door.config()
    workdir, settings = Path(flags.FLAGS.workdir), config.calibrate
    folder = workdir / settings.split
    traces, labels = read_shards(folder, "traces"), read_shards(folder, "labels")
    trained = workdir / "draft_model"
    session = door.open_session(config, trained if trained.is_dir() else config.draft)
    draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    signals = extracted(session, traces, draft, folder).signals
    best = None
    for name in settings.smoothers:
        seen = outcomes(smoother_named(name), traces, labels, signals, len(session.end_think_ids))
        choice = choose_thresholds(seen, threshold_grid(seen), settings.bound, standard_errors=settings.standard_errors)
        door.say(f"{name}: {choice.tokens:.1f} tokens, accuracy {choice.accuracy:.4f}, lost {choice.drop:.4f}")
        if best is None or choice.tokens < best[1].tokens:
            best = (name, choice)
    name, choice = best
    save_policy(
        workdir / "policy.json",
        PolicyFile(
            rule="default",
            smoothing=name,
            boundary_kinds=tuple(config.annotate.kinds),
            thresholds=choice.thresholds,
            bound=settings.bound,
            epsilon=None,
            delta=None,
            split=settings.split,
            problems=len(traces),
            draft=session.draft_digest,
        ),
    )
    door.say(f"{workdir / 'policy.json'}: {name}, thresholds {choice.thresholds}")


if __name__ == "__main__":
    door.define_config()
    door.run(main)
