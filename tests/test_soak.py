"""A long run through refilled slots: thousands of prompts of random lengths, limits and seeds, each with the same
result as alone."""

import gc
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from specexit_jax.annotation.rollout import request_of
from specexit_jax.data.splits import sample
from specexit_jax.decoding.loop.speculative import decode
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.session import EMBEDDED, load_session
from specexit_jax.engine.slots import slots_for
from specexit_jax.engine.specs import spec_for

LENGTH, SLOTS = 1000, 8


def resident_megabytes() -> float:
    """Memory of this process that is in RAM."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1024


def random_requests(session, number: int) -> list[tuple[Request, int]]:
    """Requests of 20 to 500 tokens (earlier chats stand before the question), each with its limit of tokens in all."""
    rng = np.random.default_rng(7)
    problems = sample("development", number // 6 + 1)[:number]
    prompts = [request_of(session, problem, 0).prompt_ids for problem in problems]
    found = []
    for place, prompt in enumerate(prompts):
        ids = tuple(prompt)
        while rng.random() < 0.5:
            ids = (*prompts[rng.integers(len(prompts))], *ids)
        ids = ids[-500:]
        limit = len(ids) + int(rng.integers(1, 400))
        found.append((Request(f"soak {place}", ids, int(rng.integers(1000))), min(limit, LENGTH)))
    return found


def asked_of(session, method, request: Request, limit: int):
    (prepared,) = prepare(session, [request], method, DecodeSettings(max_new_tokens=limit)).requests
    return prepared.in_buffer(limit)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "tree"), [(2000, None), (900, TreeShape(5, 4, 16))], ids=["chain", "tree"])
def test_two_thousand_prompts(number, tree):
    session = load_session(EMBEDDED / "target", EMBEDDED / "draft")
    policy, kinds = read_policy(session, EMBEDDED / "policy.json")
    method = make_method(session, "specexit", policy, kinds, tree=tree)
    requests = random_requests(session, number)
    assert len({len(request.prompt_ids) for request, _ in requests}) > 100
    slots = slots_for(session, method, spec_for(session, method, LENGTH), SLOTS)
    asked = [asked_of(session, method, *request) for request in requests]
    found, memory = {}, []
    for place, result, _ in serve(slots, enumerate(asked)):
        found[place] = result.tokens[0, : int(result.length[0])].tolist(), int(result.exit_position[0])
        if len(found) % (number // 10) == 0:
            gc.collect()
            memory.append((resident_megabytes(), len(jax.live_arrays()), slots.compile_seconds))
    print("\nMB, arrays alive and seconds compiled, after each tenth:", memory)
    assert len(found) == number
    # Shapes that few prompts have are compiled late, and the allocator fills up to its largest need. After that a leak would show.
    assert memory[-1][0] - memory[6][0] < 15
    assert memory[-1][1] <= memory[3][1] + 5
    spec, different = spec_for(session, method, LENGTH), []
    for place, (request, _) in enumerate(requests):
        width = next(width for width in (128, 256, 512) if width >= len(request.prompt_ids))
        rows = PromptRows.of([asked[place]], 1, width)
        alone = decode(spec, session.params, rows, method.policy, method.boundaries)
        expected = np.asarray(alone.tokens)[0, : int(alone.length[0])].tolist(), int(alone.exit_position[0])
        if found[place] != expected:
            different.append(request.id)
    assert different == []
    assert sum(exit_position >= 0 for _, exit_position in found.values()) > number / 10
