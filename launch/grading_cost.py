"""launch.benchmark --config --workdir --grading: rollouts with a slow checker against rollouts without."""

import json

from absl import flags

from launch import door, signal_cost
from specexit_jax.annotation.rollout import Rollout
from specexit_jax.data.splits import sample
from specexit_jax.engine.methods import make_method
from specexit_jax.evaluation.loop.grading_cost import WAYS, grading_cost

FLAGS = flags.FLAGS
flags.DEFINE_bool("grading", False, "With --config: measure rollouts whose answers take 0.3 s each to grade.")
flags.DEFINE_enum("checker", "sleep", ["sleep", "busy"], "With --grading: whether the checker waits or computes.")
flags.DEFINE_integer("workers", 8, "With --grading: processes that grade.", lower_bound=1)


def wanted() -> bool:
    return FLAGS.grading


check = signal_cost.check


def report(as_json: bool) -> str:
    """Measures on --limit development problems a task, in batches of --batch_size (1), --rounds times."""
    door.decode_on_one_thread()
    config, session, _ = signal_cost.opened()
    found = grading_cost(
        session,
        sample("development", FLAGS.limit, tuple(config.tasks)),
        make_method(session, "eagle3", draft_tokens=config.evaluate.draft_tokens),
        Rollout(config.seed, FLAGS.batch_size or 1, config.rollout.max_new_tokens),
        checker=FLAGS.checker,
        workers=FLAGS.workers,
        rounds=FLAGS.rounds,
    )
    if as_json:
        return json.dumps(found)
    ways = [
        f"{way} {found['tokens_per_second'][way]:.0f}"
        + (f" ({found['ratio'][way]:.3f})" if way in found["ratio"] else "")
        for way in WAYS
    ]
    share = found["decoding_share"]
    return (
        f"{found['traces']} traces, a checker of {found['checker']}, {found['workers']} processes; tokens/s and the ratio to the "
        f"first: {', '.join(ways)}; the device decodes in {100 * share[WAYS[0]]:.1f}, {100 * share[WAYS[1]]:.1f} and "
        f"{100 * share[WAYS[2]]:.1f} % of the time"
    )
