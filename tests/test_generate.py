"""Sessions, methods and requests, on a tiny random model folder."""

import dataclasses
import hashlib
import json
import time

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from specexit_jax.data.tokenizer import prompt_text
from specexit_jax.engine.batches import plan
from specexit_jax.engine.generate import decode_prepared, generate, stream
from specexit_jax.engine.keys import request_keys
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.placement import Auto, Placement
from specexit_jax.engine.preparing import prepare, prepare_fitting
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import chat_ids, close_thinking, is_thinking, load_session, text_of, without_signals
from specexit_jax.exits.policy import unreachable
from specexit_jax.parallel.sharding import make_mesh

QUESTIONS = ("Count the legs of 3 dogs.", "4+4?", "Count the legs.")


@pytest.fixture(scope="module")
def requests(session):
    return [Request(f"q{i}", tuple(chat_ids(session, QUESTIONS[i % 3])), seed=i // 3) for i in range(7)]


@pytest.mark.parametrize("refill", [True, False])
def test_outcomes_do_not_depend_on_the_batch_and_keep_the_order(session, requests, specexit, refill):
    together = generate(session, requests, specexit, placement=Placement(4, refill))
    alone = generate(session, requests[::-1], specexit)[::-1]
    assert [outcome.id for outcome in together] == [request.id for request in requests]
    assert any(outcome.exit is not None for outcome in together)
    for batched, single in zip(together, alone, strict=True):
        for field in ("ids", "exit", "think_end", "thinking_tokens", "finished", "accepted", "prompt_ids"):
            assert getattr(batched, field) == getattr(single, field), field
        if single.exit_signals:
            np.testing.assert_allclose(batched.exit_signals, single.exit_signals, rtol=1e-4)


@pytest.mark.parametrize("placed", ["fc", "draft"])
def test_a_draft_without_its_signals_writes_the_same_tokens_in_as_many_steps(session, requests, placed):
    assert session.params.draft["fc"].shape == (48, 19)
    if placed == "draft":
        own = session.params.draft
        own = own | {"fc": own["fc"][:, :16], "signal_head": own["fc"][:16, 16:]}
        draft = dataclasses.replace(session.draft, signals="draft")
        session = dataclasses.replace(session, draft=draft, params=session.params.replace(draft=own))
    cut = without_signals(session)
    assert cut.params.draft["fc"].shape == (48, 16) and "signal_head" not in cut.params.draft
    cheap = generate(cut, requests, make_method(cut, "eagle3", draft_tokens=2))
    costly = generate(session, requests, make_method(session, "specexit", unreachable(), draft_tokens=2))
    assert [(one.ids, one.steps) for one in cheap] == [(one.ids, one.steps) for one in costly]
    with pytest.raises(ValueError, match="does not have"):
        make_method(cut, "specexit", unreachable())
    with pytest.raises(ValueError, match="Only a draft with signals"):
        without_signals(cut)


def test_prompts_come_in_few_shapes(session, requests, specexit):
    roomy = dataclasses.replace(session, target=dataclasses.replace(session.target, max_position=1024))
    requests = [
        Request("long", (session.thinking.start[0],) * 129),
        *requests,
        Request("full", (session.thinking.start[0],) * 128),
    ]
    batches = plan(prepare(roomy, requests, specexit, DecodeSettings(max_new_tokens=8)), Placement(2))
    assert {batch.rows.prompts.shape for batch in batches} == {(2, 128), (2, 256)}
    assert {request.id for batch in batches for request in batch.prepared.requests} == {
        request.id for request in requests
    }
    assert len({batch.spec for batch in batches}) == 1
    for batch in batches:
        used = len(batch.prepared.requests)
        assert (batch.rows.max_length[used:] == 0).all()
        assert (batch.rows.max_length[:used] == batch.rows.prompt_length[:used] + 8).all()
        assert batch.rows.thinking[:used].all()


def test_a_length_gives_way_to_the_context(session, requests, specexit):
    context = session.target.max_position
    for changed, settings in (
        (dataclasses.replace(session, max_new_tokens=1000), DecodeSettings()),
        (session, DecodeSettings(max_new_tokens=1000)),
    ):
        (batch,) = plan(prepare(changed, requests[:1], specexit, settings))
        assert batch.spec.buffer_length == context and batch.rows.max_length[0] == context


def test_a_stream_tells_each_outcome_once_and_times_it(session, requests, specexit):
    """The seconds of an outcome never include compilation."""
    compiled = []

    def listen(name, seconds, **_):
        if name.endswith("backend_compile_duration"):
            compiled.append(seconds)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        began = time.perf_counter()
        told = list(stream(session, requests[:3], specexit))
        refilled = list(stream(session, requests, specexit, placement=Placement(2)))
        most = time.perf_counter() - began - sum(compiled)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert [outcome.id for outcome in told] == ["q0", "q1", "q2"]
    assert [(one.id, one.seed) for one in refilled] == [(request.id, request.seed) for request in requests]
    assert compiled and all(0 < outcome.seconds < most for outcome in told + refilled)


def test_a_session_on_a_mesh_writes_the_same_tokens(tiny, session, requests, specexit):
    """Parameters go from the file to their shards, and the loop runs over them."""
    mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
    sharded = load_session(tiny / "target", tiny / "draft", mesh=mesh)
    assert sharded.params.target["layers_0"]["mlp"]["down"].sharding.spec == PartitionSpec("tensor", "fsdp")
    assert len(sharded.params.draft["fc"].sharding.device_set) == 4
    plain = generate(session, requests, specexit, placement=Placement(2))
    found = generate(sharded, requests, specexit, placement=Placement(2))
    assert [(one.ids, one.exit) for one in found] == [(one.ids, one.exit) for one in plain]


def test_what_the_context_cuts_is_told_and_what_it_has_no_room_for_is_left_out(session, requests, specexit, capsys):
    ids = requests[0].prompt_ids
    full = dataclasses.replace(requests[0], id="full", prompt_ids=(*ids, *ids * 9)[-96:])
    last = dataclasses.replace(full, id="last", prompt_ids=full.prompt_ids[-95:])
    settings = DecodeSettings(max_new_tokens=90)
    prepared, left = prepare_fitting(session, [requests[1], full, last], specexit, settings)
    assert [request.id for request in prepared.requests] == ["q1", "last"]
    assert (
        "1 of 3 prompts fill the target's context of 96 tokens (the first: 'full', 96 tokens)"
        in capsys.readouterr().err
    )
    (none,) = left
    assert (none.ids, none.finished, none.cut, none.tau) == ((), False, True, None)
    for batch_size in (1, 2, Auto(2)):
        cut = list(decode_prepared(prepared, Placement(batch_size)))
        assert [len(one.ids) for one in cut if not one.finished] == [96 - len(one.prompt_ids) for one in cut if one.cut]
        assert cut[1].cut or cut[1].finished
    short = generate(session, [requests[1]], specexit, DecodeSettings(max_new_tokens=2))
    assert not any(one.cut for one in short)


def test_keys_depend_on_seed_and_id_alone():
    names, seeds = ["a", "gcd/test/7", "a", "a", "a", "a", "\ud800"], [0, 123, -1, 2**32, 2**32 - 1, -(2**80), 0]
    keys = jax.random.key_data(request_keys(names, seeds))
    for row, (name, seed) in enumerate(zip(names, seeds, strict=True)):
        expected = hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogatepass"), digest_size=8).digest()
        assert np.asarray(keys[row]).astype("<u4").tobytes() == expected
        assert (
            keys[row].tolist()
            == jax.random.key_data(request_keys([name], [np.int64(seed)] if row < 2 else [seed]))[0].tolist()
        )
    assert len({tuple(key) for key in keys.tolist()}) == len(names)
    with pytest.raises(ValueError, match=r"The seed of request 'a' must be an integer, but it is 1.5"):
        request_keys(["a"], [1.5])


def test_200_000_ids_share_no_noise():
    """Ids like those of a server. With crc32 nine pairs of them had equal values."""
    rng = np.random.default_rng(0)
    names = [rng.bytes(8).hex() for _ in range(200_000)]
    data = np.asarray(jax.random.key_data(request_keys(names, [0] * len(names))), np.uint64)
    assert len(np.unique(data[:, 0] << np.uint64(32) | data[:, 1])) == len(names)


def test_outcomes_do_not_depend_on_the_batch_where_jax_has_another_generator(session, requests, specexit):
    expected = [one.ids for one in generate(session, requests, specexit)]
    jax.config.update("jax_default_prng_impl", "rbg")
    try:
        assert [one.ids for one in generate(session, requests, specexit, placement=Placement(4))] == expected
    finally:
        jax.config.update("jax_default_prng_impl", "threefry2x32")


def test_nothink_closes_the_prompt_as_the_template_does(session):
    ids = chat_ids(session, QUESTIONS[0])
    closed = close_thinking(session, ids)
    assert closed == session.tokenizer.encode(prompt_text(session.tokenizer, QUESTIONS[0], thinking=False))
    assert is_thinking(session, ids)
    assert not is_thinking(session, closed)
    assert close_thinking(session, closed) == closed
    assert not is_thinking(session, session.tokenizer.encode("no thought at all"))
    (batch,) = plan(prepare(session, [Request("a", tuple(ids))], make_method(session, "nothink", draft_tokens=2)))
    assert batch.rows.prompts[0, : batch.rows.prompt_length[0]].tolist() == closed
    assert not batch.rows.thinking[0]


def test_a_template_that_does_not_open_the_thinking_is_opened(session):
    def template(messages, **_):
        return f"<|user|>{messages[0]['content']}<|assistant|>"

    class Plain:
        encode = session.tokenizer.encode
        added_tokens_decoder = session.tokenizer.added_tokens_decoder
        chat_template = "{{ messages }}"
        apply_chat_template = staticmethod(template)

    ids = chat_ids(dataclasses.replace(session, tokenizer=Plain), "4+4?")
    assert session.tokenizer.decode(ids).endswith("<|assistant|><think>\n")


def test_text_keeps_the_end_of_thinking_and_drops_the_stop_token(session):
    ids = session.tokenizer.encode("4.\n\n</think>\n\n12<|end|>")
    assert text_of(session, ids) == "4.\n\n</think>\n\n12"
    assert text_of(session, ids[:-1]) == "4.\n\n</think>\n\n12"


def test_every_token_has_its_text_and_special_ones_none(session):
    assert len(session.token_texts) == session.target.vocab_size
    assert session.token_texts[session.tokenizer.encode("7")[0]] == "7"
    assert session.token_texts[session.thinking.start[0]] == ""


@pytest.mark.parametrize(
    ("defaults", "temperature", "stop"),
    [
        ({}, 0.0, [3]),
        ({"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05}, 0.7, [3]),
        ({"do_sample": True}, 1.0, [3]),
        ({"do_sample": False, "temperature": 0.7}, 0.0, [3]),
        ({"eos_token_id": [3, 0]}, 0.0, [3, 0]),
    ],
)
def test_generation_defaults(tiny, tmp_path, monkeypatch, defaults, temperature, stop):
    for path in (tiny / "target").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "generation_config.json").write_text(json.dumps(defaults))
    loaded = load_session(tmp_path)
    assert loaded.sampling.temperature == temperature
    assert list(loaded.stop_ids) == stop
    assert loaded.sampling.top_k == defaults.get("top_k", 0)
    assert loaded.sampling.min_p == defaults.get("min_p", 0.0)


def test_deer_tries_and_takes_back_what_a_random_model_never_believes(session, requests):
    think = generate(session, requests, make_method(session, "think"), placement=Placement(4))
    for name in ("deer", "deer_eagle3"):
        method = make_method(session, name, draft_tokens=2)
        assert method.draft_tokens == (0 if name == "deer" else 2)
        tried = generate(session, requests, method, placement=Placement(4))
        assert [(one.ids, one.exit) for one in tried] == [(one.ids, None) for one in think]
        assert sum(one.trials for one in tried) > 3
        assert all(one.trials <= one.trial_tokens <= 16 * one.trials for one in tried)
    assert all((one.trials, one.trial_tokens) == (0, 0) for one in think)


def test_first_answer_leaves_after_the_first_statement(session, requests):
    outcomes = generate(session, requests, make_method(session, "first_answer", kinds=(), draft_tokens=2))
    states = [["answer" in session.token_texts[token] for token in outcome.ids] for outcome in outcomes]
    left = [outcome for outcome in outcomes if outcome.exit is not None]
    assert left
    assert all(outcome.exit_signals is None for outcome in left)
    for outcome, stated in zip(outcomes, states, strict=True):
        thought = outcome.ids[: outcome.thinking_tokens]
        first = stated.index(True) if True in stated else len(outcome.ids)
        ends = [at for at, token in enumerate(thought) if at >= first and session.token_texts[token].endswith("\n\n")]
        ends = [at for at in ends if at + 1 < session.max_new_tokens]  # an exit leaves room for </think>
        assert outcome.exit == (ends[0] + 1 if ends else None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt_ids": ()}, "is empty"),
        ({"prompt_ids": (1,) * 96}, "has 96 tokens, which leave no room in the target's context of 96: shorten it"),
        ({"prompt_ids": (1, 4000)}, "holds token 4000"),
        ({"id": "q1"}, "2 requests have the id .q1. and the seed 0"),
    ],
)
def test_wrong_requests_are_refused_before_any_work(session, requests, specexit, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        prepare(session, [dataclasses.replace(requests[0], **change), requests[1]], specexit)


def test_policies_are_read_with_their_rule(session, tiny):
    policy, kinds = read_policy(session, tiny / "policy.json", smoother="mean")
    assert (type(policy.smoother).__name__, kinds) == ("SlidingMean", ("paragraph",))
    policy, kinds = read_policy(session, "absent.json", exit_rule="released", smoother="momentum")
    assert (policy.score, kinds) == ("momentum", ("released",))
