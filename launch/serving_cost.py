"""launch.benchmark --serving: what HTTP costs beside the slots and the API, under load and for a request that is alone."""

import json
from typing import Any

from absl import flags

from launch import configured
from specexit_jax.api.model import SLOTS, SpecExit
from specexit_jax.data.splits import sample
from specexit_jax.engine.conversation import CONTEXT

FLAGS = flags.FLAGS
flags.DEFINE_bool("serving", False, "Measure a server: under load, and for a request that is alone.")
flags.DEFINE_integer("clients", 16, "With --serving: requests that clients have open at a time.", lower_bound=1)
ROUNDS, LIMIT, LONE = 4, 16, 24
check = configured.check


def wanted() -> bool:
    return FLAGS.serving


def report(as_json: bool) -> str:
    """Measures on --limit (16) problems a task, with --batch_size (8) slots, --rounds (4) times."""
    from specexit_jax.serving.cost import serving_cost
    from specexit_jax.serving.offer import Offer

    model = SpecExit.load() if FLAGS["config"].value is None else configured.model()
    slots = FLAGS.batch_size or SLOTS
    found = serving_cost(
        model,
        lambda: Offer(model, "model", CONTEXT, slots),
        [problem.question for problem in sample("development", _given("limit", LIMIT))],
        many=FLAGS.clients,
        rounds=_given("rounds", ROUNDS),
        lone=LONE,
    )
    return json.dumps(found) if as_json else _text(found)


def _given(name: str, otherwise: int) -> int:
    return FLAGS[name].value if FLAGS[name].present else otherwise


def _text(found: dict[str, Any]) -> str:
    load, alone = found["load"], found["alone"]
    lines = [
        f"{found['requests']} requests, {found['clients']} clients, {found['slots']} slots; medians [least, greatest] of "
        f"{found['rounds']} rounds"
    ]
    for name, pace in load["tokens_per_second"].items():
        ratio = load["times_the_cpu"].get(name)
        told = f" ({_range(ratio)} times the first's)" if ratio else ""
        lines.append(
            f"{name}: {_range(pace, 0)} tokens/s, {_range(load['cpu_ms_per_token'][name])} ms of CPU a token{told}"
        )
    for name, ms in alone["ms"].items():
        lines.append(f"alone, {name}: p50 {_range(ms, 1)} ms, {_range(alone['cpu_ms'][name], 1)} ms of CPU")
    over = alone["overhead_ms"]["whole"]
    lines.append(f"first text p50 {_range(alone['first_text_ms'], 1)} ms; HTTP over the API {_range(over, 1)} ms")
    return "\n".join(lines)


def _range(values: list[float], digits: int = 2) -> str:
    middle, least, greatest = (f"{value:.{digits}f}" for value in values)
    return f"{middle} [{least}, {greatest}]"
