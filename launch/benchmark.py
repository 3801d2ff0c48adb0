"""What the signals and the exit rule cost; or, with --compile_only, what a program will take on a TPU slice that is not here.

1. The loop with unreachable thresholds against one compiled without signals:

python -m launch.benchmark --config=configs/embedded.py --workdir=runs/embedded [--rounds=50] [--limit=1] [--json]
Both write the same tokens in the same iterations, in interleaved runs on the development split, compilation excluded.
Draft and policy (whose smoother runs) are WORKDIR's where they were left there, else the config's. --limit: problems a task.

2. Compiled ahead of time (needs libtpu beside jax; JAX_PLATFORMS=cpu), with the bytes a device:
python -m launch.benchmark --compile_only --topology=v5e:2x2 --preset=qwen3-4b --program=decode|train [--json]
"""

import itertools
import json
from pathlib import Path

from absl import flags

from launch import compile_only, door
from specexit_jax.annotation.rollout import request_of
from specexit_jax.data.splits import sample
from specexit_jax.evaluation.latency import interleaved_ratio
from specexit_jax.exits.policy import Threshold, unreachable
from specexit_jax.methods import make_method, read_policy
from specexit_jax.run import execute, outcomes, plan, warm_up
from specexit_jax.session import without_signals

_ROUNDS = flags.DEFINE_integer("rounds", 50, "How often both loops decode every problem, in turns.")
_LIMIT = flags.DEFINE_integer("limit", 1, "Problems a task.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON.")


def main() -> None:
    if compile_only.wanted():
        door.say(compile_only.told(_JSON.value))
        return
    if flags.FLAGS["config"].value is None or flags.FLAGS.workdir is None:
        raise ValueError("Give --config and --workdir, or --compile_only.")
    door.decode_on_one_thread()
    config, workdir = door.config(), Path(flags.FLAGS.workdir)
    own = workdir / "draft_model"
    session = door.open_session(config, own if own.is_dir() else config.draft)
    own = workdir / "policy.json"
    policy, kinds = read_policy(session, own if own.is_file() else config.policy)
    smoother = policy.smoother if isinstance(policy, Threshold) else None
    problems = sample("development", _LIMIT.value, tuple(config.tasks))
    sides = {}
    for name, side in (("without", without_signals(session)), ("with", session)):
        drafted = config.evaluate.draft_tokens
        if name == "with":
            method = make_method(side, "specexit", unreachable(smoother), kinds, draft_tokens=drafted)
        else:
            method = make_method(side, "eagle3", draft_tokens=drafted)
        requests = [request_of(side, problem, config.seed) for problem in problems]
        sides[name] = (side, plan(side, requests, method, max_new_tokens=config.rollout.max_new_tokens))
        for batch in sides[name][1]:
            warm_up(side, batch)
    results = {name: _decoded(*side) for name, side in sides.items()}
    written = [[outcome.ids for outcome in results[name]] for name in ("without", "with")]
    if written[0] != written[1]:
        raise ValueError("The two loops wrote different tokens, so their times cannot be compared.")
    steps = sum(outcome.steps for outcome in results["with"])
    # A round is one problem, so that a slow moment of the machine is shared by both sides.
    ratio = interleaved_ratio(*(_in_turn(*sides[name]) for name in ("without", "with")), _ROUNDS.value * len(problems))
    told = {
        "cost": ratio.median - 1,
        "low": ratio.low - 1,
        "high": ratio.high - 1,
        "iteration_ms": {
            name: 1e3 * seconds * len(problems) / steps
            for name, seconds in (("without", ratio.first_s), ("with", ratio.second_s))
        },
        "decodes": ratio.rounds,
        "iterations": steps,
    }
    if _JSON.value:
        door.say(json.dumps(told))
        return
    ms = told["iteration_ms"]
    door.say(
        f"signals and exit rule cost {100 * told['cost']:+.1f} % of an iteration "
        f"(95 % interval {100 * told['low']:+.1f} to {100 * told['high']:+.1f}; {ratio.rounds} decodes each in turns, "
        f"{steps / len(problems):.0f} iterations a decode; {ms['without']:.3f} ms without, {ms['with']:.3f} with)"
    )


def _in_turn(session, batches):
    """A call that decodes the next problem, round and round."""
    turns = itertools.cycle(batches)
    return lambda: execute(session, next(turns))


def _decoded(session, batches):
    return [outcome for batch in batches for outcome in outcomes(batch, execute(session, batch))]


if __name__ == "__main__":
    door.define_config(required=False)
    door.run(main)
