"""The exit score of calibration and ablation, as a config describes it."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags

from launch import door
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.pipeline import scoring
from specexit_jax.exits.score import SCORE, ScoreNetwork
from specexit_jax.training.score_fit import ScoreFit


def split_of(config: ml_collections.ConfigDict) -> list[str]:
    """The split that the exit score is fitted on; none where no score is asked for."""
    return [config.calibrate.score.split] if SCORE in config.calibrate.smoothers else []


def fitted(
    config: ml_collections.ConfigDict, session: Session, kinds: Sequence[str], name: str = "signals.npz"
) -> ScoreNetwork | None:
    """The network fitted for the session's draft at boundaries of these kinds; None where no score is asked for.

    name: the file of the draft's signals in the split's folder.
    """
    if not (split := split_of(config)):
        return None
    made = ScoreFit(**{key: value for key, value in config.calibrate.score.items() if key != "split"})
    folder = Path(flags.FLAGS.workdir) / split[0]
    return scoring.fitted_score(session, folder, kinds, config.annotate.confidence, made, door.say, name)
