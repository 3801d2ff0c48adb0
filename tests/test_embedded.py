"""The bundled model: transformers loads it to the same logits, and every method decodes with it, token for token."""

import dataclasses
import json

import numpy as np
import pytest

from specexit_jax.annotation.annotate import labels
from specexit_jax.annotation.features import extract
from specexit_jax.annotation.forcing import Forcing, make_forcer
from specexit_jax.annotation.replay import replay
from specexit_jax.annotation.rollout import request_of, trace_of
from specexit_jax.data.splits import sample
from specexit_jax.data.world.tasks import TASKS
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.requests import DecodeSettings
from specexit_jax.engine.session import EMBEDDED, chat_ids, load_session
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.target import Target

NEW_TOKENS = 880


@pytest.fixture(scope="module")
def session():
    return load_session(EMBEDDED / "target", EMBEDDED / "draft")


def test_size_on_disk():
    assert sum(path.stat().st_size for path in (EMBEDDED / "target").iterdir()) <= 12 * 2**20


def test_logits_equal_those_of_transformers(session):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(EMBEDDED / "target"), dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(EMBEDDED / "target"))
    chat = [{"role": "user", "content": "What is 12 + 30 - 4?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<think>\n")
    ids = np.array([tokenizer.encode(text) + list(range(7, 60))], np.int32)
    positions = np.arange(ids.shape[1], dtype=np.int32)[None]
    ours = Target(session.target).apply({"params": session.params.target}, ids, positions).logits
    with torch.no_grad():
        theirs = model(torch.tensor(ids, dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=1e-3, rtol=1e-3)


def test_generation_defaults(session):
    defaults = json.loads((EMBEDDED / "target" / "generation_config.json").read_text())
    assert session.sampling == Sampling(temperature=defaults["temperature"])
    assert len(session.end_think_ids) == 1
    assert session.tokenizer.decode(chat_ids(session, "Hi")).endswith("<think>\n")


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [Sampling(), None], ids=["greedy", "sampled"])
def test_all_methods_write_the_same_tokens_up_to_the_exit_and_replay_equals_decoding(session, sampling):
    """1,000 problems; a pair may differ from a token on whose top two (perturbed) logits are closer than 1e-4."""
    problems = sample("test", 167)[:1000]
    session = dataclasses.replace(session, sampling=sampling or session.sampling)
    policy, kinds = read_policy(session, EMBEDDED / "policy.json")
    requests = [request_of(session, problem, 0) for problem in problems]
    decoded = {}
    for name in ("think", "eagle3", "probe", "specexit"):
        method = make_method(session, name, policy, kinds)
        decoded[name] = generate(session, requests, method, DecodeSettings(max_new_tokens=NEW_TOKENS))
    differing = [a.id for a, b in zip(decoded["think"], decoded["eagle3"], strict=True) if a.ids != b.ids]
    differing += [a.id for a, b in zip(decoded["probe"], decoded["specexit"], strict=True) if a.ids != b.ids]
    for full, cut in zip(decoded["eagle3"], decoded["specexit"], strict=True):
        kept = cut.exit if cut.exit is not None else len(cut.ids)
        if full.ids[:kept] != cut.ids[:kept]:
            differing.append(full.id)
    assert differing == []
    full = [trace_of(session, problem, one) for problem, one in zip(problems, decoded["eagle3"], strict=True)]
    shown = replayed(session, full, policy, kinds)
    assert [one.id for one in decoded["specexit"] if (one.ids, one.exit) != shown[one.id]] == []
    assert sum(one.exit is not None for one in decoded["specexit"]) > 500


def replayed(session, full, policy, kinds):
    """(ids, index of the forced </think>) of every trace as the policy's replay has them."""
    boundaries = session.boundaries(kinds)
    forcing = Forcing(rows=16, branches=4, max_answer=16, max_new_tokens=NEW_TOKENS)
    forced = labels(session, full, boundaries, make_forcer(session, forcing), forcing)
    chosen = [label for batch in forced for label in batch]
    bundle = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    signals = extract(session.target, session.params.target, session.end_think_ids, full, bundle).signals
    return {one.id: (one.ids, one.exit_index) for one in replay(policy, full, chosen, signals, session.end_think_ids)}


def test_replay_equals_decoding_on_the_bundled_model(session):
    """One row at a time, and the traces are of the same method without its exits: one program, that of test_api.py."""
    problems = sample("test", 1, TASKS)[:3]
    policy, kinds = read_policy(session, EMBEDDED / "policy.json")
    method = make_method(session, "specexit", policy, kinds)
    requests = [request_of(session, problem, 0) for problem in problems]
    settings = DecodeSettings(max_new_tokens=NEW_TOKENS)
    whole = generate(session, requests, method, dataclasses.replace(settings, may_exit=False))
    full = [trace_of(session, problem, one) for problem, one in zip(problems, whole, strict=True)]
    shown = replayed(session, full, policy, kinds)
    exits = 0
    for outcome in generate(session, requests, method, settings):
        assert (outcome.ids, outcome.exit) == shown[outcome.id]
        exits += outcome.exit is not None
    assert exits > 0
