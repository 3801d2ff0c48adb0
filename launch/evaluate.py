"""Evaluates methods on a split: WORKDIR/{records.jsonl, results.json, report.md, report.html, report/*.png}; prints the table.

python -m launch.evaluate --config=configs/embedded.py --workdir=runs/embedded [--methods=a,b] [--tasks=a,b] [--limit=N]
--limit: problems a task. The draft and policy are WORKDIR's where training left them there, else the config's.
--from_records: tables and reports anew from what WORKDIR holds; decodes nothing.
"""

from pathlib import Path

from absl import flags

from launch import door, from_records
from launch.stages import forcing_of, source_of, target_name
from specexit_jax.evaluation import harness
from specexit_jax.evaluation.evaluate import evaluate
from specexit_jax.evaluation.exit_records import CeilingSetting
from specexit_jax.evaluation.tables import terminal_table
from specexit_jax.methods import read_policy

_METHODS = flags.DEFINE_list("methods", None, "Methods; default: the config's.")
_TASKS = flags.DEFINE_list("tasks", None, "Tasks; default: the config's.")
_LIMIT = flags.DEFINE_integer("limit", None, "Problems a task; default: the config's.")
_BATCH = flags.DEFINE_integer("batch_size", None, "Rows decoded together; default: the config's.")


def main() -> None:
    door.decode_on_one_thread()
    door.alone("evaluation")
    config, workdir = door.config(), Path(flags.FLAGS.workdir)
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
    policy, kinds = read_policy(session, policy_path) if exits else (None, ("paragraph",))
    source = source_of(config, tasks)
    setting = harness.Setting(
        settings.split, methods, config.seed, _BATCH.value or settings.batch_size, forcing_of(config),
        settings.draft_tokens, settings.latency_per_task, settings.latency_rounds, target_name(config), source.label,
    )  # fmt: skip
    problems = source.problems(setting.split, _LIMIT.value or settings.per_task)
    ceiling = CeilingSetting(config.calibrate.split, config.calibrate.bound, config.calibrate.standard_errors)
    return evaluate(session, problems, policy, kinds, setting, ceiling, workdir)


if __name__ == "__main__":
    door.define_config()
    door.run(main)
