"""Chooses when to exit: WORKDIR/policy.json.

python -m launch.calibrate --config=configs/embedded.py --workdir=runs/embedded [--epsilon=0.01 --delta=0.05 [--per_task]]
Without --epsilon: smoothing and thresholds by grid on the development split, within the accuracy that may be lost there.
With it: P(risk <= epsilon) >= 1 - delta, the risk being the share of problems that full thinking has right and the exit
wrong. A path fixed on the development split is walked on the calibration split (learn-then-test); refused where that split
cannot certify. WORKDIR/frontier.json tells what other epsilons cost; --per_task adds WORKDIR/policies/TASK.json, each of which
holds by itself at delta, or with --simultaneous all k of them at once, each at delta / k. One problem counts once, however many
samples it has.
The draft is WORKDIR/draft_model where training left one there, else the config's.
"""

from pathlib import Path

from absl import flags

from launch import checks, digest, door, loading, scores, stages
from specexit_jax.evaluation.certified import conditions
from specexit_jax.evaluation.certified.certify import Goal, scored
from specexit_jax.evaluation.pipeline import calibrating
from specexit_jax.exits.policy_file import save_policy
from specexit_jax.exits.score import to_json
from specexit_jax.storage.checkpoint import write_json

_EPSILON = flags.DEFINE_float(
    "epsilon", None, "Risk to certify, for example 0.01; default: choose thresholds on a grid, without a certificate."
)
_DELTA = flags.DEFINE_float("delta", 0.05, "Probability that a certified risk is above epsilon after all.")
_PER_TASK = flags.DEFINE_bool("per_task", False, "Also certify one policy for each task, in WORKDIR/policies.")
_SIMULTANEOUS = flags.DEFINE_bool(
    "simultaneous", False, "With --per_task: use delta / k for each of k tasks, so that all certificates hold at once."
)


def check():
    """Returns the config and the draft. Refuses flags without effect, splits that are not annotated, and unknown
    names."""
    config, workdir = door.config(), Path(flags.FLAGS.workdir)
    certified = _EPSILON.value is not None
    if _SIMULTANEOUS.value and not _PER_TASK.value:
        raise ValueError("--simultaneous shares delta among the policies of tasks: give --per_task too.")
    for name in ("delta", "per_task"):
        if flags.FLAGS[name].present and not certified:
            raise ValueError(f"--{name} is of certified policies: give --epsilon too, or leave it out.")
    for name, value in (("epsilon", _EPSILON.value), ("delta", _DELTA.value)):
        if certified:
            checks.chance(name, value)
    checks.names_of(config)
    draft = checks.draft_of(config)
    chosen_on = (config.calibrate.split, *([config.calibrate.certify_on] if certified else []))
    for split in (*chosen_on, *scores.split_of(config)):
        checks.annotated(workdir / split, whole=split in chosen_on)
        stages.require_source(config, workdir / split)
    if certified:
        calibrating.require_problems(workdir / config.calibrate.certify_on, _EPSILON.value, _DELTA.value)
    return config, draft


def main() -> None:
    door.alone("calibration")
    door.claim_stage("calibrate")
    config, draft = check()
    workdir, settings, kinds = Path(flags.FLAGS.workdir), config.calibrate, tuple(config.annotate.kinds)
    session = loading.open_session(config, draft)
    checks.signals(session)
    certifying = settings.split if _EPSILON.value is None else settings.certify_on
    bind = conditions.binder(session, workdir / certifying, config.rollout.max_new_tokens)
    smoothers, score = scores.smoothers_and_score(config, session, kinds)
    by = smoothers, kinds, door.say, score
    development = calibrating.seen_split(session, workdir / settings.split, *by)
    if _EPSILON.value is None:
        bounds, signals = (settings.bound, settings.standard_errors, settings.budget or None), tuple(settings.signals)
        file = calibrating.by_grid(development, *bounds, kinds, session.draft_digest, door.say, signals)
    else:
        split, budget = settings.certify_on, settings.budget or None
        goal = Goal(_EPSILON.value, _DELTA.value, tuple(settings.signals), budget, settings.split, split)
        calibration = calibrating.seen_split(session, workdir / split, *by)
        paths = scored(development.by_smoother, goal)
        file = calibrating.by_certificate(paths, calibration, goal, kinds, session.draft_digest, door.say)
        rows = calibrating.frontier_of(paths, calibration, goal, settings.frontier, door.say)
        network = {} if score is None else {"score": to_json(score, session.draft.signal_names)}
        write_json(workdir / "frontier.json", {"split": split, "rows": rows} | network)
        digest.offered("frontier", rows)
        if _PER_TASK.value:
            sides = development, calibration, goal, kinds, session.draft_digest, door.say
            own = calibrating.by_task(*sides, _SIMULTANEOUS.value)
            for task, policy in own.items():
                save_policy(workdir / "policies" / f"{task}.json", bind(calibrating.with_score(policy, score)))
    save_policy(workdir / "policy.json", bind(calibrating.with_score(file, score)))
    door.say(f"{workdir / 'policy.json'}: {file.smoothing}, thresholds {file.thresholds}")


if __name__ == "__main__":
    door.define_config()
    door.run(main)
