"""launch.benchmark --config --workdir --throughput: refilled slots against closed batches."""

import json

from absl import flags

from launch import signal_cost
from specexit_jax.annotation.rollout import request_of
from specexit_jax.data.splits import sample
from specexit_jax.engine.methods import make_method
from specexit_jax.evaluation.loop.throughput import refill_gain

FLAGS = flags.FLAGS
flags.DEFINE_bool(
    "throughput", False, "With --config: measure tokens per second with refilled slots and with closed batches."
)
flags.DEFINE_enum(
    "split", "development", ["development", "test"], "With --throughput: split that the problems come from."
)


def wanted() -> bool:
    return FLAGS.throughput


check = signal_cost.check


def report(as_json: bool) -> str:
    """Measures `specexit` on --limit problems a task, in batches of --batch_size (8)."""
    config, session, (policy, kinds) = signal_cost.opened()
    method = make_method(session, "specexit", policy, kinds, config.evaluate.draft_tokens)
    problems = sample(FLAGS.split, FLAGS.limit, tuple(config.tasks))
    found = refill_gain(
        session,
        [request_of(session, problem, config.seed) for problem in problems],
        method,
        batch_size=FLAGS.batch_size or 8,
        max_new_tokens=config.rollout.max_new_tokens,
        rounds=FLAGS.rounds,
    )
    if as_json:
        return json.dumps(found)
    pace = found["tokens_per_second"]
    return (
        f"batch {found['batch_size']}, {found['requests']} requests: {pace['refilled']:.0f} tokens/s with refilled slots, "
        f"{pace['closed']:.0f} in closed batches: {found['times']:.2f} times as many"
    )
