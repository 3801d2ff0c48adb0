"""The sections of an evaluation on the loop itself, from real decodes at batch 1 of the timed problems."""

from collections.abc import Sequence
from typing import Any

from specexit_jax.data.splits import Problem
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.loop.acceptance_position import acceptance_by_position, step_lengths
from specexit_jax.evaluation.loop.latency_split import latency_split
from specexit_jax.evaluation.pipeline.harness import Setting
from specexit_jax.evaluation.pipeline.timed import first_of_each_task
from specexit_jax.exits.policy import Policy

_DRAFTING = ("eagle3", "specexit")


def loop_sections(
    session: Session,
    problems: Sequence[Problem],
    policy: Policy | None,
    kinds: Sequence[str],
    setting: Setting,
    traces: Sequence[dict],
) -> dict[str, Any]:
    """`acceptance_position` and, of one problem a task, `latency_split`; {} where neither is asked for, or nothing is
    drafted. traces: of full thinking, all problems."""
    names = [name for name in _DRAFTING if name in setting.methods]
    if not (setting.loop_parts and setting.latency_per_task and setting.draft_tokens and names):
        return {}
    methods = [make_method(session, name, policy, kinds, setting.draft_tokens) for name in names]
    full = make_method(session, "eagle3", draft_tokens=setting.draft_tokens)
    timed = first_of_each_task(problems, setting.latency_per_task)
    lengths = step_lengths(session, timed, full, setting.seed, setting.max_new_tokens)
    ends = {trace["id"]: trace["think_end"] for trace in traces if trace["id"] in lengths}
    split = latency_split(
        session,
        first_of_each_task(problems, 1),
        methods,
        lengths,
        seed=setting.seed,
        max_new_tokens=setting.max_new_tokens,
        rounds=setting.latency_rounds,
    )
    return {"acceptance_position": acceptance_by_position(lengths, ends), "latency_split": split}
