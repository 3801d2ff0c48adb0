"""Two drafts of one target side by side, each trained and certified in a workdir of its own: WORKDIR/drafts.json.

python -m launch.drafts --config=configs/embedded.py --workdir=runs/embedded --other=runs/mtp
    [--limit=40] [--tree=5,4,16] [--rounds=3]
Acceptance and pace on problems of the development split, confidence on its annotated traces, the saving of each draft's
policy.json on the split that certified it. Both workdirs hold these splits, of the same traces.
"""

import dataclasses
from pathlib import Path

from absl import flags

from launch import checks, door, loading, stages
from specexit_jax.evaluation.pipeline import drafts_beside
from specexit_jax.evaluation.pipeline.drafts_beside import Side, chain, tree
from specexit_jax.exits.policy_file import load_policy
from specexit_jax.storage.checkpoint import write_json

FLAGS = flags.FLAGS
_OTHER = flags.DEFINE_string("other", None, "Workdir of the second draft.")
_LIMIT = flags.DEFINE_integer("limit", 40, "Problems of each task.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of the timing.", lower_bound=1)
_TREE = flags.DEFINE_list("tree", ["5", "4", "16"], "depth,top_k,total of the draft tree beside the chains.")
_TIMED = 3  # problems of each task that are timed


def check():
    """Returns the config, both workdirs and the tree. Refuses splits that are not annotated, and those of another source."""
    config = door.config()
    if _OTHER.value is None:
        raise ValueError("Name the second draft's workdir: --other=FOLDER.")
    shape, folders = door.tree(_TREE.value), (Path(FLAGS.workdir), Path(_OTHER.value))
    for folder in folders:
        for split in (config.calibrate.split, config.calibrate.certify_on):
            checks.annotated(folder / split)
            stages.require_source(config, folder / split)
    return config, folders, shape


def side_of(config, workdir: Path) -> Side:
    """The draft and policy of a workdir; the config's where it has none."""
    session = loading.open_session(config, checks.draft_of(config, workdir=workdir))
    checks.signals(session)
    return Side(session, load_policy(checks.policy_of(config, workdir=workdir), session.draft_digest), workdir)


def main() -> None:
    door.decode_on_one_thread()
    door.alone("the comparison")
    config, folders, shape = check()
    sides = tuple(side_of(config, folder) for folder in folders)
    kinds, split, seed = tuple(config.annotate.kinds), config.calibrate.split, config.seed
    longest, short = config.rollout.max_new_tokens, config.evaluate.draft_tokens
    rows = []
    ways = {f"chain of {length}": chain(length) for length in dict.fromkeys((short, shape.depth))}
    ways[f"tree of depth {shape.depth}, top {shape.top_k}, {shape.total} drafts"] = tree(shape)
    source = stages.source_of(config)
    problems = source.problems(split, _LIMIT.value)
    for name, way in ways.items():
        rows += drafts_beside.drafting(sides, problems, name, way, seed, longest, 8)
        door.say(f"{rows[-1].quantity}: {rows[-1].first.value:.3f}, {rows[-1].second.value:.3f}")
    rows.append(drafts_beside.knowing(sides, split, kinds))
    rows.append(drafts_beside.saving(sides, config.calibrate.certify_on, kinds))
    timed = source.problems(split, min(_TIMED, _LIMIT.value))
    rows.append(drafts_beside.pacing(sides, timed, chain(short), seed, longest, _ROUNDS.value))
    names = tuple(folder.name for folder in folders)
    write_json(folders[0] / "drafts.json", {"folders": names, "rows": [dataclasses.asdict(row) for row in rows]})
    door.say(drafts_beside.text(rows, names))


if __name__ == "__main__":
    door.define_config()
    door.run(main)
