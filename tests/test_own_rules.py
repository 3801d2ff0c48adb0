"""Rows with thresholds and a thinking budget of their own, side by side in one program: each is what it is alone."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import boundary_table, tiny_spec

from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.outcomes import outcome_of
from specexit_jax.engine.placement import Placement
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.session import chat_ids
from specexit_jax.engine.slots import slots_for
from specexit_jax.engine.specs import spec_for
from specexit_jax.exits.policy import Deer
from specexit_jax.exits.signals import never_limits

MOST = 40
BUDGETS = (0, 1, 2, 5, 11, 39, 100)


@pytest.fixture(scope="module")
def policy(session, tiny):
    return read_policy(session, tiny / "policy.json")


@pytest.fixture(scope="module")
def requests(session):
    prompt = tuple(chat_ids(session, "Count the legs."))
    return [Request(f"r{seed}", prompt, seed) for seed in range(4)]


def cut(session, method, plain, budget: int):
    """What a run without a budget wrote, with `</think>` after so many thinking tokens and what the model writes behind it."""
    if plain.thinking_tokens <= budget:
        return plain.ids
    begun = (*plain.ids[:budget], *session.end_think_ids)
    if len(begun) == MOST:
        return begun
    asked = Request(plain.id, (*plain.prompt_ids, *begun), plain.seed)
    (rest,) = generate(session, [asked], method, DecodeSettings(max_new_tokens=MOST - len(begun)))
    return (*begun, *rest.ids)


TREE = pytest.param(TreeShape(2, 2, 4), marks=pytest.mark.slow, id="tree")


@pytest.mark.parametrize("tree", [pytest.param(None, id="chain"), TREE])
def test_a_thinking_budget_is_kept_token_for_token(session, policy, requests, tree):
    """Against runs whose prompt holds the thinking so far: nothing of the budget is in their program."""
    method = make_method(session, "eagle3", draft_tokens=2, tree=tree)
    plain = generate(session, requests, method, DecodeSettings(max_new_tokens=MOST))
    assert {one.thinking_tokens for one in plain} & set(range(6, MOST + 1))
    for budget in BUDGETS if tree is None else (5,):
        found = generate(session, requests, method, DecodeSettings(max_new_tokens=MOST, thinking_budget=budget))
        for one, full in zip(found, plain, strict=True):
            assert one.ids == cut(session, method, full, budget), budget
            assert one.spent == (full.thinking_tokens > budget)
            assert one.exit == (budget if one.spent else None) and one.thinking_tokens <= budget


def test_a_budget_and_the_policy_end_the_thinking_whichever_is_first(session, policy, requests):
    method = make_method(session, "specexit", *policy, draft_tokens=2)
    exits = generate(session, requests, method, DecodeSettings(max_new_tokens=MOST))
    assert {one.exit for one in exits} - {None}
    for budget in (1, 3, 8):
        settings = DecodeSettings(max_new_tokens=MOST, thinking_budget=budget)
        for one, free in zip(generate(session, requests, method, settings, Placement(3)), exits, strict=True):
            own = free.exit is not None and free.exit <= budget
            assert one.spent == (not own and free.thinking_tokens > budget)
            assert one.ids[: one.thinking_tokens] == free.ids[: min(budget, free.thinking_tokens)]
            assert not own or one.ids == free.ids


def test_rows_with_thresholds_of_their_own_share_a_program(session, policy, requests):
    """Rows that never exit, that exit at once and that exit late, in slots that other rows share."""
    rule, kinds = policy
    base = make_method(session, "specexit", rule, kinds, draft_tokens=2)
    seen = [one.exit_signals for one in generate(session, requests, base, DecodeSettings(max_new_tokens=MOST))]
    late = tuple(float(value) for value in np.asarray(seen[0], np.float32) * np.float32([1.02, 1.02, 0.98]))
    choices = [tuple(map(float, np.asarray(rule.limits))), never_limits(rule.signals), late, None]
    expected, asked, owner = {}, [], {}
    spec = spec_for(session, base, 96, own_rules=True)
    for number, limits in enumerate(choices):
        own = base
        if limits is not None:
            own = dataclasses.replace(base, policy=rule.replace(thresholds=jnp.asarray(limits, jnp.float32)))
        prepared = prepare(session, requests, own, DecodeSettings(max_new_tokens=MOST))
        for one, outcome in zip(
            prepared.requests, generate(session, requests, own, DecodeSettings(max_new_tokens=MOST)), strict=True
        ):
            name = number, one.id
            expected[name], owner[name] = outcome, (prepared, one)
            asked.append((name, one.in_buffer(96, limits)))
    order = np.random.default_rng(0).permutation(len(asked))
    found = {}
    for name, result, _ in serve(slots_for(session, base, spec, 3), [asked[place] for place in order]):
        prepared, one = owner[name]
        found[name] = outcome_of(prepared, one, result, 0, 0.0)
    assert found.keys() == expected.keys()
    for name, one in found.items():
        assert (one.ids, one.exit) == (expected[name].ids, expected[name].exit), name
    exits = [{expected[number, one.id].exit for one in requests} for number in range(3)]
    assert exits[1] == {None} and exits[0] != exits[2]


def test_text_so_far_is_read_from_all_slots_at_once(session, policy, requests):
    method = make_method(session, "specexit", *policy, draft_tokens=2)
    prepared = prepare(session, requests, method, DecodeSettings(max_new_tokens=MOST))
    slots = slots_for(session, method, spec_for(session, method, 96, own_rules=True), 2)
    since = np.zeros((2,), np.int32)
    for row in range(2):
        slots.admit(row, prepared.requests[row].in_buffer(96))
        since[row] = len(prepared.requests[row].prompt_ids)
    texts = {0: (), 1: ()}
    while slots.active:
        slots.run(steps=2)
        seen = slots.written(since, 8)
        for row in texts:
            fresh = int(slots.lengths[row] - since[row])
            texts[row] += tuple(seen.tokens[row, :fresh].tolist())
        since = slots.lengths.copy()
    for row in texts:
        outcome = outcome_of(prepared, prepared.requests[row], slots.result(row), 0, 0.0)
        assert texts[row] == outcome.ids and len(outcome.ids) > 3
        assert seen.exit_position[row] == len(outcome.prompt_ids) + outcome.exit
        assert seen.seen_signals[row] == pytest.approx(outcome.exit_signals)


def test_own_rules_and_trials_exclude_each_other():
    spec = dataclasses.replace(tiny_spec(0), own_rules=True)
    with pytest.raises(ValueError, match="with trials"):
        make_loop(spec, None, Deer(jnp.float32(0.5), 4), boundary_table())
