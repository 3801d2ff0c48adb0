"""Evaluates methods on a split: WORKDIR/{records.jsonl, results.json, report.md, report.html, report/*.png}; prints the table.

python -m launch.evaluate --config=configs/embedded.py --workdir=runs/embedded [--methods=a,b] [--tasks=a,b] [--limit=N]
--config.source.name=gsm8k,math500,aime,humaneval_plus,gpqa_diamond,arc_challenge takes those benchmarks instead of the world.
--limit: problems a task. The draft and policy are WORKDIR's where training left them there, else the config's.
Processes that a launcher has joined, or that --shard=0/8 numbers, share the decoding of all methods, tasks and seeds; the one
that is done last makes the report. Goes on where it was killed, with any number of processes.
--from_records: makes tables and reports again from the files in WORKDIR; decodes nothing.
--digest=docs/results/evaluation.json keeps the numbers that the pages show; launch.pages writes them there.
"""

import dataclasses
from pathlib import Path

from absl import flags

from launch import checks, digest, door, from_records, loading, stages, strictness
from specexit_jax.engine.binding import uncovered
from specexit_jax.evaluation.pipeline import harness, sharing
from specexit_jax.evaluation.pipeline.bounding import CeilingSetting
from specexit_jax.evaluation.pipeline.calibrating import require_problems
from specexit_jax.evaluation.pipeline.evaluate import evaluate
from specexit_jax.evaluation.report.tables import terminal_table
from specexit_jax.exits.policy_file import load_policy
from specexit_jax.storage.shards import WHOLE, Shard

_METHODS = flags.DEFINE_list(
    "methods", None, "Methods to evaluate, separated by commas; default: config.evaluate.methods."
)
_TASKS = flags.DEFINE_list("tasks", None, "Tasks to evaluate, separated by commas; default: config.tasks.")
_LIMIT = flags.DEFINE_integer("limit", None, "Problems of each task; default: config.evaluate.per_task.")
_SEEDS = flags.DEFINE_list(
    "seeds",
    None,
    "Seeds of the sampling: config.seed and the next ones, for example 0,1,2. Default: config.seed alone.",
)
_BATCH = flags.DEFINE_string(
    "batch_size",
    None,
    "Rows that are decoded at a time: a number, auto (as many as fit, up to 64) or auto:MOST; default: config.evaluate.batch_size.",
)
_DECODING = ("methods", "tasks", "limit", "seeds", "batch_size")


def check():
    """Returns (config, methods, draft, policy) after checking that everything needed exists; decodes nothing."""
    config = door.config()
    if from_records.wanted():
        door.alone("making a report from records")
        if ignored := [name for name in _DECODING if flags.FLAGS[name].value is not None]:
            raise ValueError(
                f"--{ignored[0]} says what to decode, and --from_records decodes nothing: leave one of them out."
            )
        return config, (), None, from_records.policy_of(config)
    methods = tuple(_METHODS.value or config.evaluate.methods)
    harness.require_methods(methods)
    exits = any(name in (*harness.REPLAYED, *harness.BOUNDS) for name in methods)
    policy = checks.policy_of(config) if exits else None
    if policy is not None:
        load_policy(policy)
    stages.source_of(config, _TASKS.value)
    stages.forcing_of(config)
    stages.rows_of(config, _BATCH.value or config.evaluate.batch_size)
    _seeds(config.seed)
    return config, _without_ceiling(config, methods, policy), checks.draft_of(config), policy


def main() -> None:
    door.decode_on_one_thread()
    shard = WHOLE if from_records.wanted() else stages.shard()
    if shard.count == 1:
        door.claim_stage("evaluate")
    if not from_records.wanted():
        for stem in ("traces", "labels"):  # as launch.rollout and launch.annotate do
            stages.claim_share(stem, [door.config().evaluate.split], shard)
    config, methods, draft, policy = check()
    workdir = Path(flags.FLAGS.workdir)
    if from_records.wanted():
        results = from_records.results(config, workdir, policy)
    else:
        results = _evaluated(config, methods, draft, policy, shard)
    if results is None:
        return
    door.say(terminal_table(results), by_any=True)
    digest.offered("evaluation", results)
    door.say(f"\nreport: {workdir / 'report.html'}", by_any=True)


def _evaluated(config, methods: tuple[str, ...], draft: str, policy: Path | None, shard: Shard) -> dict | None:
    """The results; None where other processes have not decoded their shares yet, or one of them makes the report."""
    sizes = _seeds(config.seed), _BATCH.value
    setting = stages.setting_of(config, methods, _TASKS.value, *sizes, stages.grader_of(config))
    problems = stages.source_of(config, _TASKS.value).problems(setting.split, _LIMIT.value or config.evaluate.per_task)
    session = loading.open_session(config, draft)
    file = None if policy is None else load_policy(policy, session.draft_digest)
    if file is not None:
        strictness.report(uncovered(file, session, policy, max_new_tokens=setting.max_new_tokens))
    workdir = Path(flags.FLAGS.workdir)
    if shard.count > 1:
        sharing.decode_share(session, problems, file, dataclasses.replace(setting, shard=shard), workdir)
        if (left := sharing.missing(problems, file, setting, workdir)) or not _reports():
            told = ", ".join(f"{count} {stem}" for stem, count in left.items())
            missing = f"{told} are missing still: whoever decodes the last makes" if left else "another process makes"
            door.say(f"share {shard.index}/{shard.count} is decoded; {missing} the report.", by_any=True)
            return None
    rules = config.calibrate
    most = config.evaluate.ceiling_boundaries
    ceiling = CeilingSetting(rules.split, rules.bound, rules.standard_errors, rules.certify_on, most)
    return evaluate(session, problems, file, setting, ceiling, workdir)


def _reports() -> bool:
    """Whether this process makes the report; False where another one is at it."""
    try:
        door.claim(Path(flags.FLAGS.workdir) / ".evaluate.lock")
    except ValueError:
        return False
    return True


def _without_ceiling(config, methods: tuple[str, ...], policy: Path | None) -> tuple[str, ...]:
    """The methods, without `ceiling` (with a note) if the splits that it is fitted on are missing or too small."""
    if "ceiling" not in methods:
        return methods
    workdir, rules, certificate = Path(flags.FLAGS.workdir), config.calibrate, load_policy(policy).certificate
    try:
        for split in dict.fromkeys(["draft", rules.split, *([rules.certify_on] if certificate else [])]):
            checks.annotated(workdir / split)
        if certificate:
            require_problems(workdir / rules.certify_on, certificate.epsilon, certificate.delta)
    except (OSError, ValueError) as missing:
        kept = tuple(name for name in methods if name != "ceiling")
        if not kept:
            raise
        door.say(f"The method ceiling is left out: {missing}")
        return kept
    return methods


def _seeds(first: int) -> int:
    """The number of seeds, which are consecutive from the config's seed on."""
    seeds = list(door.whole_numbers("seeds", _SEEDS.value)) if _SEEDS.value else [first]
    if seeds != list(range(first, first + len(seeds))):
        raise ValueError(f"--seeds goes on from the config's seed, as in --seeds={first},{first + 1},{first + 2}.")
    return len(seeds)


if __name__ == "__main__":
    stages.define_shard()
    door.define_config()
    door.run(main)
