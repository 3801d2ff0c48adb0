"""launch.benchmark --config --workdir: the share of an iteration that signals and exit rule take, on the config's own
model."""

import json

import ml_collections
from absl import flags

from launch import checks, door, loading
from specexit_jax.data.splits import sample
from specexit_jax.engine.methods import read_policy
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.loop.signal_cost import signal_cost
from specexit_jax.exits.policy import Policy
from specexit_jax.exits.policy_file import load_policy

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 50, "With --config: number of times that both loops decode every problem, interleaved.")
flags.DEFINE_integer("limit", 1, "With --config: problems of each task.")


def wanted() -> bool:
    return FLAGS["config"].value is not None or FLAGS.workdir is not None


def check():
    """Returns the config, the draft and the policy."""
    if FLAGS["config"].value is None or FLAGS.workdir is None:
        raise ValueError("Give --config and --workdir both, or neither to time a preset.")
    config = door.config()
    draft, policy = checks.draft_of(config), checks.policy_of(config)
    load_policy(policy)
    return config, draft, policy


def opened() -> tuple[ml_collections.ConfigDict, Session, tuple[Policy, tuple[str, ...]]]:
    """The config, its models, and a policy with its boundary kinds; WORKDIR's draft and policy if they exist."""
    config, draft, policy = check()
    session = loading.open_session(config, draft)
    return config, session, read_policy(session, policy)


def report(as_json: bool) -> str:
    """Measures on the development split."""
    door.decode_on_one_thread()
    config, session, (policy, kinds) = opened()
    found = signal_cost(
        session,
        policy,
        kinds,
        sample("development", FLAGS.limit, tuple(config.tasks)),
        seed=config.seed,
        draft_tokens=config.evaluate.draft_tokens,
        max_new_tokens=config.rollout.max_new_tokens,
        rounds=FLAGS.rounds,
    )
    return json.dumps(found) if as_json else _text(found)


def _text(found: dict) -> str:
    ms, decodes = found["iteration_ms"], found["decodes"]
    problems = decodes // FLAGS.rounds
    return (
        f"signals and exit rule cost {100 * found['cost']:+.1f} % of an iteration "
        f"(95 % interval {100 * found['low']:+.1f} to {100 * found['high']:+.1f}; {decodes} decodes each in turns, "
        f"{found['iterations'] / problems:.0f} iterations a decode; {ms['without']:.3f} ms without, "
        f"{ms['with']:.3f} with)"
    )
