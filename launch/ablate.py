"""Ablations of the exit, certified in the same way and used on the same test traces: WORKDIR/ablations.{json,md}.

python -m launch.ablate --config=configs/embedded.py --workdir=runs/embedded [--epsilon=0.01] [--delta=0.05] [--limit=200]
Tables: every subset of the signals, the exit score without each of its parts, every smoother, every kind of boundary, both
places of the signals (a draft trained with --config.train.signals=fc, named by config.ablate.draft); the released rule, which
is decoded, and DEER's, by its own threshold and by a certified one, beside the default rule. All against eagle3, with 95 %
intervals of a paired bootstrap over problems, several seeds each. Development and calibration splits, and for the exit score the
draft's, must be rolled out and annotated (launch.rollout, launch.annotate); what test lacks is decoded here.
"""

import dataclasses
from pathlib import Path

from absl import flags

from launch import checks, digest, door, loading, scores, stages, strictness
from specexit_jax.evaluation.certified import ablation, conditions
from specexit_jax.evaluation.certified.certify import Goal
from specexit_jax.evaluation.pipeline import ablating, scoring
from specexit_jax.evaluation.pipeline.calibrating import require_problems
from specexit_jax.evaluation.pipeline.deer_trials import trial_rows
from specexit_jax.evaluation.records import write_atomically
from specexit_jax.storage.checkpoint import write_json

_EPSILON = flags.DEFINE_float("epsilon", 0.01, "Risk that the exits of every arm are certified for.")
_DELTA = flags.DEFINE_float("delta", 0.05, "Probability that a certified risk is above epsilon after all.")
_LIMIT = flags.DEFINE_integer("limit", None, "Problems of each task; default: config.ablate.per_task.")


def check():
    """Returns the config and the draft. Refuses splits that are not annotated or too small to certify, and missing
    drafts."""
    config, workdir = door.config(), Path(flags.FLAGS.workdir)
    checks.chance("epsilon", _EPSILON.value)
    checks.chance("delta", _DELTA.value)
    checks.names_of(config)
    stages.source_of(config)
    if config.ablate.draft and not Path(config.ablate.draft).is_dir():
        raise FileNotFoundError(f"config.ablate.draft names {config.ablate.draft}, which is not a folder.")
    if config.calibrate.score.get("policy", ""):
        raise ValueError("An ablation fits exit scores of its own: leave config.calibrate.score.policy out.")
    draft = checks.draft_of(config)
    chosen_on = config.calibrate.split, config.calibrate.certify_on
    for split in (*chosen_on, *scores.split_of(config)):
        checks.annotated(workdir / split, whole=split in chosen_on)
    require_problems(workdir / config.calibrate.certify_on, _EPSILON.value, _DELTA.value)
    return config, draft


def main() -> None:
    door.decode_on_one_thread()
    door.alone("ablation")
    door.claim_stage("evaluate")  # it may add traces to the test split
    config, draft = check()
    workdir = Path(flags.FLAGS.workdir)
    for stem in ("traces", "labels"):
        stages.claim_share(stem, [config.evaluate.split])
    settings = config.calibrate
    sessions = {"own": loading.open_session(config, draft)}
    checks.signals(sessions["own"])
    if config.ablate.draft:
        sessions["other"] = loading.open_session(config, config.ablate.draft)
    places = {name: session.draft.signals for name, session in sessions.items()}
    setting = stages.setting_of(config, seeds=config.ablate.seeds, grader=stages.grader_of(config))
    problems = stages.source_of(config).problems(setting.split, _LIMIT.value or config.ablate.per_task)
    test = ablating.test_split(sessions["own"], problems, config.annotate.kinds, setting, workdir / setting.split)
    splits = [*(ablating.read_split(workdir / name) for name in (settings.split, settings.certify_on)), test]
    strictness.report(conditions.unlike(sessions["own"], workdir / settings.certify_on, setting.max_new_tokens))
    goal = Goal(_EPSILON.value, _DELTA.value, path_split=settings.split, split=settings.certify_on)

    def fit(name: str, kinds: tuple[str, ...], without: tuple[str, ...]):
        table = scores.table_of(config, sessions[name], kinds, ablating.signals_file(name), without)
        return scoring.fitted_score(table, scores.fit_of(config), door.say)

    folders = [*(split.folder for split in splits), *(workdir / name for name in scores.split_of(config))]
    arms = ablating.annotated_arms(ablation.arms(settings.smoothers, places), folders, door.say)
    rows = ablating.rows_of(arms, ablating.SeenSplits(sessions, splits, fit), goal, test, door.say)
    default = next(row for row in rows if row["table"] == "signals' place")
    rows.append(default | {"table": "rule", "arm": "default, certified"})
    for score in config.ablate.released:
        rows.append(ablating.released_row(sessions["own"], score, problems, setting, test, "rule"))
    rows += trial_rows(sessions["own"], splits, goal, "rule")
    tables = [ablation.table_of(rows, name) for name in dict.fromkeys(row["table"] for row in rows)]
    write_json(workdir / "ablations.json", {"goal": dataclasses.asdict(goal), "seeds": setting.seeds, "rows": rows})
    digest.offered("ablations", rows)
    write_atomically(workdir / "ablations.md", "\n".join(tables))
    door.say("\n" + "\n".join(tables))


if __name__ == "__main__":
    door.define_config()
    door.run(main)
