"""What more annotated traces would give the exit score: WORKDIR/learning_curve.json.

python -m launch.learning_curve --config=configs/embedded.py --workdir=runs/embedded [--epsilon=0.01] [--seeds=3]
Fits the score on 1/32, 1/16, ... and all of the traces of config.calibrate.score.split. Judges each on the development split,
config.calibrate.split: its AUC, and the tokens that thresholds save, as a mean over levels of harm from 0.3 epsilon to epsilon.
The thresholds are chosen there, so the savings are a little too good; they are for comparison, and certify nothing.
"""

from pathlib import Path

from absl import flags

from launch import checks, digest, door, loading, scores, stages
from specexit_jax.evaluation.pipeline import calibrating, scoring
from specexit_jax.exits.path import scored_paths, tokens_below
from specexit_jax.exits.score import SCORE, ScoreNetwork
from specexit_jax.storage.checkpoint import write_json

_EPSILON = flags.DEFINE_float("epsilon", 0.01, "The largest share of problems that exits may harm.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Fits of each size.", lower_bound=1)


def check():
    """Returns the config and the draft. Refuses splits that are not annotated."""
    config, workdir = door.config(), Path(flags.FLAGS.workdir)
    checks.chance("epsilon", _EPSILON.value)
    checks.names_of(config)
    draft = checks.draft_of(config)
    for split in (config.calibrate.split, config.calibrate.score.split):
        checks.annotated(workdir / split, whole=split == config.calibrate.split)
        stages.require_source(config, workdir / split)
    return config, draft


def main() -> None:
    door.alone("learning_curve")
    door.claim_stage("learning_curve")
    config, draft = check()
    workdir, kinds = Path(flags.FLAGS.workdir), tuple(config.annotate.kinds)
    session = loading.open_session(config, draft)
    checks.signals(session)
    folder = workdir / config.calibrate.split
    held = scoring.boundary_table(session, folder, kinds, "one", without=scores.left_out_of(config))

    def judged(network: ScoreNetwork) -> dict[str, float]:
        seen = calibrating.seen_split(session, folder, (SCORE,), kinds, door.say, network).by_smoother
        (path,) = scored_paths(seen)
        found = {"auc": held.auc(network, range(len(held.seen)))[0]}
        return found | {"saved": 1 - tokens_below(_EPSILON.value, path) / path.full}

    table = scores.table_of(config, session, kinds)
    rows = scoring.learning_curve(table, scores.fit_of(config), _SEEDS.value, judged)
    for row in rows:
        door.say(
            f"{row['traces']} traces, {row['boundaries']:.0f} boundaries: AUC {row['auc']:.4f}, {100 * row['saved']:.1f} % saved"
        )
    write_json(workdir / "learning_curve.json", {"epsilon": _EPSILON.value, "seeds": _SEEDS.value, "rows": rows})
    digest.offered("learning_curve", rows)


if __name__ == "__main__":
    door.define_config()
    door.run(main)
