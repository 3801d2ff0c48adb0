"""Rollouts of the target on the problems of the config's source: WORKDIR/SPLIT/traces.jsonl, and rollout.json with
their settings.

python -m launch.rollout --config=configs/embedded.py --workdir=runs/embedded [--splits=draft,development] [--shard=0/8]
Problems come from the reasoning world, from a benchmark, or from a table of questions and answers on the hub or on disk:
--config.source.name=openai/gsm8k --config.source.config=main --config.source.answer_after='####'
--config.source.name=gsm8k --config.source.split=draft=train,development=train,calibration=train,test=test
--config.sampling.temperature=0.6 (top_k, top_p, min_p) samples otherwise than the target's own generation_config.json says.
--config.source.name=problems.jsonl --config.source.question=problem --config.source.answer=solution --config.source.checker=math
Processes that a launcher has joined, or that --shard numbers, share the prompts, each on its own devices, and write
traces-00000-of-00008.jsonl. Resumes where it was killed, with any number of processes. Speculates where training has
left a draft in WORKDIR, or the config's exists: sampling is keyed by position, so the traces are the same without it, only later.
"""

from pathlib import Path

from absl import flags

from launch import checks, door, loading, stages
from specexit_jax.annotation.rollout import Rollout, roll_out
from specexit_jax.engine.methods import make_method
from specexit_jax.storage.shards import require_settings

_SPLITS = flags.DEFINE_list(
    "splits", None, "Splits to roll out, separated by commas; default: those of config.rollout.per_task."
)
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Problems of each split (reasoning world: of each task and split); default: config.rollout.per_task."
)


def check():
    """Returns the config, the number of problems of each split, and their source."""
    config = door.config()
    wanted = door.splits(_SPLITS.value, config.rollout.per_task)
    stages.rows_of(config, config.rollout.batch_size)
    return config, {split: _count(config, split) for split in wanted}, stages.source_of(config)


def _count(config, split: str) -> int:
    """--limit, else the config's number for the split: of the rollouts, or of the evaluation that decodes it."""
    count = _LIMIT.value if _LIMIT.value is not None else config.rollout.per_task.get(split)
    if count is None and split == config.evaluate.split:
        count = config.evaluate.per_task
    if count is None:
        raise ValueError(f"config.rollout.per_task says nothing of the split {split!r}: give --limit=N.")
    if count < 1:
        raise ValueError(
            f"The split {split!r} needs at least one problem, not {count}: see --limit and config.rollout.per_task."
        )
    return count


def main() -> None:
    config, counts, source = check()
    settings, wanted = config.rollout, list(counts)
    if settings.batch_size == 1:
        door.decode_on_one_thread()
    shard = stages.shard()  # starts JAX, whose thread settings cannot change afterwards
    stages.claim_share("traces", wanted, shard)
    problems = {split: source.problems(split, count) for split, count in counts.items()}
    grader = stages.grader_of(config)
    draft = checks.draft_of(config, needed=False)
    session = loading.open_session(config, draft if draft and Path(draft).is_dir() else None)
    method = make_method(session, "eagle3" if session.draft else "think", draft_tokens=config.evaluate.draft_tokens)
    rollout = Rollout(
        config.seed,
        stages.rows_of(config, settings.batch_size),
        settings.max_new_tokens,
        settings.samples,
        shard,
        stages.target_name(config),
        source.label,
    )
    folders = {split: Path(flags.FLAGS.workdir) / split for split in wanted}
    for folder in folders.values():
        require_settings(folder, "rollout", rollout.settings(session))
    for split, folder in folders.items():
        found = roll_out(session, problems[split], method, folder, rollout, grader=grader)
        pace = f", {found['tokens_per_second']:.0f} tokens a second" if found["tokens"] else ""
        door.say(
            f"{folder}: {found['traces']} traces of {len(problems[split])} problems, {found['tokens']} tokens{pace}"
        )


if __name__ == "__main__":
    stages.define_shard()
    door.define_config()
    door.run(main)
