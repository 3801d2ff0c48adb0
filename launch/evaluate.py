"""Evaluates methods on a split: WORKDIR/{records.jsonl, results.json, report.md, report/*.png}, and prints the table.

python -m launch.evaluate --config=configs/embedded.py --workdir=runs/embedded [--methods=a,b] [--tasks=a,b] [--limit=N]
--config.source.name=gsm8k,math500,aime,humaneval_plus,gpqa_diamond,arc_challenge takes those benchmarks instead of the world.
--limit: problems a task. The draft and policy are WORKDIR's where training left them there, else the config's.
"""

from pathlib import Path

from absl import flags

from launch import door
from launch.stages import forcing_of, source_of, target_name
from specexit_jax.evaluation import harness, publish
from specexit_jax.evaluation.tables import terminal_table
from specexit_jax.methods import read_policy
from specexit_jax.models.draft import DraftBundle
from specexit_jax.shards import read_shards

_METHODS = flags.DEFINE_list("methods", None, "Methods; default: the config's.")
_TASKS = flags.DEFINE_list("tasks", None, "Tasks; default: the config's.")
_LIMIT = flags.DEFINE_integer("limit", None, "Problems a task; default: the config's.")
_BATCH = flags.DEFINE_integer("batch_size", None, "Rows decoded together; default: the config's.")


def main() -> None:
    door.decode_on_one_thread()
    door.alone("evaluation")
    config, workdir = door.config(), Path(flags.FLAGS.workdir)
    settings, tasks = config.evaluate, tuple(_TASKS.value or config.tasks)
    methods = tuple(_METHODS.value or settings.methods)
    harness.require_methods(methods)
    own = workdir / "draft_model"
    session = door.open_session(config, own if own.is_dir() else config.draft)
    exits = [name for name in methods if name in (*harness.REPLAYED, *harness.BOUNDS)]
    policy, kinds = None, ("paragraph",)
    if exits:
        own = workdir / "policy.json"
        policy, kinds = read_policy(session, own if own.is_file() else config.policy)
    source = source_of(config, tasks)
    setting = harness.Setting(
        settings.split, methods, config.seed, _BATCH.value or settings.batch_size, forcing_of(config),
        settings.draft_tokens, settings.latency_per_task, settings.latency_rounds, target_name(config), source.label,
    )  # fmt: skip
    problems = source.problems(setting.split, _LIMIT.value or settings.per_task)
    folder, records = workdir / setting.split, []
    traces = harness.decoded_traces(session, problems, "eagle3", setting, folder)
    for name in (name for name in ("eagle3", "think", "nothink") if name in methods):
        rows = traces if name == "eagle3" else harness.decoded_traces(session, problems, name, setting, folder)
        records += [harness.record_of_trace(name, trace) for trace in rows]
    shown = {"extra": {}, "offsets": {}, "views": (), "reliability": None}
    notes = [f"split {setting.split}, {len(problems)} problems, sampled at temperature {session.sampling.temperature}"]
    if exits:
        made, shown = _exits(session, config, policy, kinds, setting, traces, records, workdir)
        records += made
        notes.append("exits are replayed on annotated traces of eagle3; what was timed was decoded for real at batch 1")
    records += harness.timed_records(session, problems, policy, kinds, setting)
    results = publish.publish(workdir, records, notes=notes, **shown)
    door.say(terminal_table(results))
    door.say(f"\nreport: {workdir / 'report.md'}")


def _exits(session, config, policy, kinds, setting, traces, decoded, workdir: Path):
    """Records of the methods that exit, replayed, and of the bounds; and what else there is to show of them."""
    methods, folder = setting.methods, workdir / setting.split
    labels = harness.annotated(session, traces, kinds, setting, folder)
    draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    along = harness.extracted(session, traces, draft, folder, labels if "ceiling" in methods else ())
    signals = along.signals
    names = [name for name in harness.REPLAYED if name in methods]
    records = harness.replayed_records(session, names, policy, traces, labels, signals, setting.max_answer)
    metrics, reliability = publish.signal_metrics(policy, traces, labels, signals)
    extra = {"signals": metrics}
    test = harness.boundaries_of(session, policy, traces, labels, along)
    if "oracle" in methods:
        records += harness.oracle_records(test)
    if "ceiling" in methods:
        made, extra["ceiling"] = _ceiling(session, config, policy, draft, test, workdir)
        records += made
    offsets = publish.offsets_of([*decoded, *records], labels)
    views = publish.chosen_views(session.tokenizer, policy, records, traces, labels, signals)
    return records, {"extra": extra, "offsets": offsets, "views": views, "reliability": reliability}


def _ceiling(session, config, policy, draft, test, workdir: Path):
    """The ceiling from the training workdir's draft and development splits."""
    sides = []
    for split in ("draft", config.calibrate.split):
        folder = workdir / split
        traces, labels = read_shards(folder, "traces"), read_shards(folder, "labels")
        along = harness.extracted(session, traces, draft, folder, labels)
        sides.append(harness.boundaries_of(session, policy, traces, labels, along))
    return harness.ceiling_records(*sides, test, config.calibrate.bound, config.calibrate.standard_errors)


if __name__ == "__main__":
    door.define_config()
    door.run(main)
