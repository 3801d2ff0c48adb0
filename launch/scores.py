"""The exit score of calibration and ablation, as a config describes it."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags

from launch import door
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.pipeline import scoring
from specexit_jax.exits.policy_file import load_policy
from specexit_jax.exits.score import SCORE, ScoreNetwork
from specexit_jax.training.score_fit import CannotFit, ScoreFit

_NOT_OF_A_FIT = ("split", "without", "policy")


def split_of(config: ml_collections.ConfigDict) -> list[str]:
    """The split that the exit score is fitted on; none where no score is fitted."""
    settings = config.calibrate
    return [settings.score.split] if SCORE in settings.smoothers and not settings.score.get("policy", "") else []


def table_of(
    config: ml_collections.ConfigDict,
    session: Session,
    kinds: Sequence[str],
    name: str = "signals.npz",
    without: Sequence[str] = (),
) -> scoring.BoundaryTable:
    """The boundaries of these kinds that a network for the session's draft is fitted on.

    name: the file of the draft's signals in the split's folder. without: parts of the statistics that it does not read, beside
    those of the config.
    """
    settings = config.calibrate.score
    folder, left_out = Path(flags.FLAGS.workdir) / settings.split, (*left_out_of(config), *without)
    return scoring.boundary_table(session, folder, kinds, config.annotate.confidence, name, left_out)


def left_out_of(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The parts of the statistics that the config's score does not read."""
    return tuple(config.calibrate.score.get("without", ()))


def fit_of(config: ml_collections.ConfigDict) -> ScoreFit:
    settings = dict(config.calibrate.score.items())
    return ScoreFit(**{name: value for name, value in settings.items() if name not in _NOT_OF_A_FIT})


def smoothers_and_score(
    config: ml_collections.ConfigDict, session: Session, kinds: Sequence[str]
) -> tuple[tuple[str, ...], ScoreNetwork | None]:
    """The smoothers that can be used, and the network of `score`, if it is one of them.

    The network is that of the policy file config.calibrate.score.policy, where one is named; else it is fitted. A score that
    cannot be fitted is left out, which one line says. Raises CannotFit where it is the only smoother.
    """
    smoothers = tuple(config.calibrate.smoothers)
    if SCORE not in smoothers:
        return smoothers, None
    if path := config.calibrate.score.get("policy", ""):
        return smoothers, network_in(path, session)
    try:
        return smoothers, scoring.fitted_score(table_of(config, session, kinds), fit_of(config), door.say)
    except CannotFit as reason:
        others = tuple(name for name in smoothers if name != SCORE)
        if not others:
            raise
        door.say(f"score: left out: {reason}")
        return others, None


def network_in(path: str, session: Session) -> ScoreNetwork:
    """The network of a policy file. Raises ValueError where it has none, or was calibrated for another draft."""
    network = load_policy(path, session.draft_digest).network
    if network is None:
        raise ValueError(
            f"{path} compares no exit score: name a policy that does, or leave calibrate.score.policy out."
        )
    return network
