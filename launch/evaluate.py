"""Evaluates methods on a split: WORKDIR/{records.jsonl, results.json, report.md, report.html, report/*.png}; prints the table.

python -m launch.evaluate --config=configs/embedded.py --workdir=runs/embedded [--methods=a,b] [--tasks=a,b] [--limit=N]
--config.source.name=gsm8k,math500,aime,humaneval_plus,gpqa_diamond,arc_challenge takes those benchmarks instead of the world.
--limit: problems a task. The draft and policy are WORKDIR's where training left them there, else the config's.
--from_records: tables and reports anew from what WORKDIR holds; decodes nothing.
"""

from pathlib import Path

from absl import flags

from launch import door, from_records, stages, strictness
from specexit_jax.binding import uncovered
from specexit_jax.evaluation import harness
from specexit_jax.evaluation.evaluate import evaluate
from specexit_jax.evaluation.exit_records import CeilingSetting
from specexit_jax.evaluation.report.tables import terminal_table
from specexit_jax.exits.policy_file import load_policy

_METHODS = flags.DEFINE_list("methods", None, "Methods; default: the config's.")
_TASKS = flags.DEFINE_list("tasks", None, "Tasks; default: the config's.")
_LIMIT = flags.DEFINE_integer("limit", None, "Problems a task; default: the config's.")
_SEEDS = flags.DEFINE_list("seeds", None, "Seeds, from the config's on: --seeds=0,1,2; default: the config's alone.")
_BATCH = flags.DEFINE_integer("batch_size", None, "Rows decoded together; default: the config's.", lower_bound=1)


def main() -> None:
    door.decode_on_one_thread()
    door.alone("evaluation")
    door.claim_stage("evaluate")
    config, workdir = door.config(), Path(flags.FLAGS.workdir)
    if not from_records.wanted():
        for stem in ("traces", "labels"):  # as launch.rollout and launch.annotate do
            stages.claim_share(stem, [config.evaluate.split])
    own = workdir / "policy.json"
    policy = own if own.is_file() else Path(config.policy)
    results = (from_records.results if from_records.wanted() else _evaluated)(config, workdir, policy)
    door.say(terminal_table(results))
    door.say(f"\nreport: {workdir / 'report.html'}")


def _evaluated(config, workdir: Path, policy_path: Path) -> dict:
    settings, tasks = config.evaluate, tuple(_TASKS.value or config.tasks)
    methods = tuple(_METHODS.value or settings.methods)
    harness.require_methods(methods)
    own = workdir / "draft_model"
    session = door.open_session(config, own if own.is_dir() else config.draft)
    exits = any(name in (*harness.REPLAYED, *harness.BOUNDS) for name in methods)
    file = load_policy(policy_path, session.draft_digest) if exits else None
    setting = stages.setting_of(config, methods, tasks, _seeds(config.seed), _BATCH.value)
    if file is not None:
        strictness.told(uncovered(file, session, policy_path, max_new_tokens=setting.max_new_tokens))
    problems = stages.source_of(config, tasks).problems(setting.split, _LIMIT.value or settings.per_task)
    rules = config.calibrate
    ceiling = CeilingSetting(rules.split, rules.bound, rules.standard_errors, rules.certify_on)
    return evaluate(session, problems, file, setting, ceiling, workdir)


def _seeds(first: int) -> int:
    """How many follow the config's seed, itself included."""
    seeds = [int(text) for text in _SEEDS.value or [first]]
    if seeds != list(range(first, first + len(seeds))):
        raise ValueError(f"--seeds goes on from the config's seed, as in --seeds={first},{first + 1},{first + 2}.")
    return len(seeds)


if __name__ == "__main__":
    door.define_config()
    door.run(main)
