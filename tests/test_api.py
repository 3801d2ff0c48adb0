"""The public API: what the engine gives, token for token, said in names; one sentence on every wrong argument."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from compilations_case import compilations

import specexit_jax
from specexit_jax import SpecExit, notes
from specexit_jax.api.reading import answer_of
from specexit_jax.data.known_prompts import EXAMPLES
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import bound
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import chat_ids
from specexit_jax.engine.thinking import Thinking
from specexit_jax.exits.policy_file import load_policy, save_policy

QUESTION = "Count the legs."


@pytest.fixture(scope="module")
def bundled():
    return SpecExit.load()


@pytest.fixture(scope="module")
def model(tiny):
    return SpecExit.load(tiny / "target", tiny / "draft", tiny / "policy.json", draft_tokens=2)


def by_engine(model, tiny, name, request, **settings):
    policy = read_policy(model.session, tiny / "policy.json")
    method = make_method(model.session, name, *policy, draft_tokens=2)
    return generate(model.session, [request], method, DecodeSettings(**settings))[0]


def test_the_import_is_cheap():
    """Neither JAX nor transformers is imported before they are used."""
    code = "import sys, specexit_jax; dir(specexit_jax); sys.exit(any(m in sys.modules for m in ('jax', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert all(getattr(specexit_jax, name).__doc__ for name in specexit_jax.__all__)
    with pytest.raises(AttributeError, match="no 'SpecExti'; its public names are Answer, "):
        specexit_jax.SpecExti  # noqa: B018


def test_a_command_starts_without_what_decoding_does_not_need():
    """Each of these imports takes between half a second and four seconds."""
    heavy = ("torch", "sympy", "scipy.stats", "reasoning_gym", "sklearn", "datasets", "matplotlib", "pandas")
    code = f"import sys, launch.generate; sys.exit(' '.join(m for m in {heavy} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_bundled_model_answers_and_says_what_its_exit_was_certified_for(bundled):
    answer = bundled.generate(EXAMPLES["gcd"])
    ids = tuple(chat_ids(bundled.session, EXAMPLES["gcd"]))
    choice, method = bundled.methods.named(None)
    (outcome,) = generate(bundled.session, [Request("generate", ids, 0)], method)
    assert (answer.ids, answer.exit.token, answer.prompt_ids) == (outcome.ids, outcome.exit, ids)
    assert (answer.method, answer.finish_reason, answer.closed) == ("specexit", "stop", True)
    assert answer.text == "8" and answer.thinking.startswith("88=") and "</think>" not in answer.thinking
    assert answer.written == f"{answer.thinking}\n\n</think>\n\n8"
    left, usage = answer.exit, answer.usage
    names = ("confidence", "progress", "remain", "score")
    assert left.signals == dict(zip(names, outcome.exit_signals, strict=True))
    assert left.boundary == answer.thinking.count("\n\n") + 1
    assert left.signals["score"] >= answer.policy.thresholds["score"]
    assert (left.certificate.epsilon, left.certificate.delta, left.certificate.problems) == (0.01, 0.05, 6000)
    assert left.certificate.sampling["temperature"] == 0.8 and sum(left.certificate.tasks.values()) == 6000
    assert answer.policy.path == str(choice.path) and answer.policy.uncovered is None
    other = dataclasses.replace(answer.policy, uncovered="another temperature")
    assert answer_of(bundled.session, outcome, method, other).exit.certificate is None
    assert (usage.prompt_tokens, usage.thinking_tokens) == (len(ids), left.token)
    assert usage.generated_tokens == len(answer.ids) and usage.seconds > 0
    assert (usage.steps, usage.tokens_per_step, usage.drafts) == (outcome.steps, outcome.tau, 3)


def test_a_request_that_the_policy_was_not_made_for_has_no_certificate(bundled, monkeypatch, capsys):
    monkeypatch.setattr(notes, "_SAID", set())
    plan = bundled.plan(EXAMPLES["gcd"], temperature=0.6)
    assert "temperature 0.6 instead of 0.8" in plan.policy.uncovered and plan.policy.certificate is not None
    assert capsys.readouterr().err == f"note: {plan.policy.uncovered}\n"
    assert plan.sampling == Sampling(0.6) and plan.max_new_tokens == 880 and plan.drafts == 3
    assert (plan.method, plan.why) == ("specexit", f"exits by {plan.policy.path}")
    assert bundled.plan(EXAMPLES["gcd"]).policy.uncovered is None
    other = bundled.plan(EXAMPLES["gcd"], method="nothink")
    assert other.policy is None and len(other.prompt_ids) > len(bundled.plan(EXAMPLES["gcd"]).prompt_ids)


def test_strictness_refuses_it(tiny, model, tmp_path):
    path = tmp_path / "policy.json"
    save_policy(path, bound(load_policy(tiny / "policy.json"), model.session))
    strict = SpecExit.load(tiny / "target", tiny / "draft", path, strict_policy=True)
    assert strict.plan(QUESTION).policy.certificate is None  # by grid, without a certificate
    with pytest.raises(ValueError, match="calibrated for another run than this: temperature 0.5 instead of 1"):
        strict.plan(QUESTION, temperature=0.5)


@pytest.mark.parametrize(
    ("name", "question", "settings"),
    [
        ("model", QUESTION, {"max_new_tokens": 24, "seed": 1}),
        pytest.param("bundled", EXAMPLES["gcd"], {}, marks=pytest.mark.slow),
    ],
    ids=["tiny", "bundled"],
)
def test_exits_not_taken_leave_what_eagle3_writes_and_compile_nothing(request, name, question, settings):
    model = request.getfixturevalue(name)
    assert model.generate(question, **settings).exit is not None
    with compilations() as compiled:
        longer = model.generate(question, exits=False, **settings)
    assert not compiled
    eagle3 = model.generate(question, method="eagle3", **settings)
    assert longer.ids == eagle3.ids and (longer.method, longer.exit, longer.policy) == ("specexit", None, None)
    assert model.plan(question, exits=False).why.endswith("but no exit is taken (exits=False)")
    assert [one.ids for one in model.generate_many([question], ids=["generate"], exits=False, **settings)] == [
        longer.ids
    ]
    assert list(model.stream(question, exits=False, **settings))[-1].answer.ids == longer.ids


@pytest.mark.parametrize("method", ["specexit", "think"])
def test_pieces_are_the_answer(model, tiny, method):
    settings = {"max_new_tokens": 24, "seed": 1}
    pieces = list(model.stream(QUESTION, method=method, **settings))
    request = Request("generate", tuple(chat_ids(model.session, QUESTION)), 1)
    outcome = by_engine(model, tiny, method, request, max_new_tokens=24)
    answer = pieces[-1].answer
    assert answer.ids == outcome.ids and all(piece.answer is None for piece in pieces[:-1])
    assert "".join(piece.text for piece in pieces) == answer.written
    thoughts = [piece.thinking for piece in pieces]
    assert thoughts == sorted(thoughts, reverse=True) and thoughts[0]
    if method == "specexit":
        thought = "".join(piece.text for piece in pieces if piece.thinking)
        assert thought.endswith("</think>") and thought.removesuffix("</think>").strip() == answer.thinking
        assert "".join(piece.text for piece in pieces if not piece.thinking).strip() == answer.text != ""
        assert list(pieces[-1].signals) == ["confidence", "progress", "remain"]
    else:
        assert answer.finish_reason == "length" and not answer.closed and answer.text == "" and answer.exit is None
        assert all(piece.signals == {} for piece in pieces)


def test_a_request_is_prepared_once(model, monkeypatch):
    """For every way of asking: the prompt is closed once if the method closes it, and checked once for open thinking."""
    calls = []
    for name in ("close", "is_open"):
        plain = getattr(Thinking, name)
        monkeypatch.setattr(
            Thinking, name, lambda self, ids, name=name, plain=plain: calls.append(name) or plain(self, ids)
        )

    def counted(ask) -> tuple[int, int]:
        calls.clear()
        ask()
        return calls.count("close"), calls.count("is_open")

    ids, few = chat_ids(model.session, QUESTION), {"max_new_tokens": 12}
    for method, each in (("nothink", (1, 2)), ("think", (0, 1))):  # closing searches the prompt for open thinking
        assert counted(lambda method=method: model.generate(ids, method=method, **few)) == each
        assert counted(lambda method=method: model.plan(ids, method=method, **few)) == each
        assert counted(lambda method=method: list(model.stream(ids, method=method, **few))) == each
        many = counted(lambda method=method: model.generate_many([ids] * 3, slots=2, method=method, **few))
        assert many == (3 * each[0], 3 * each[1])


def test_signals_are_recorded_at_every_token(model, tiny):
    answer = model.generate(QUESTION, method="eagle3", record_signals=True, max_new_tokens=16)
    request = Request("generate", answer.prompt_ids, 0)
    outcome = by_engine(model, tiny, "eagle3", request, max_new_tokens=16, record_signals=True)
    assert list(answer.signals) == ["confidence", "progress", "remain"] and answer.ids == outcome.ids
    np.testing.assert_array_equal(np.stack(list(answer.signals.values()), axis=-1), outcome.signals)
    assert all(values.shape == (len(answer.ids),) for values in answer.signals.values())
    with pytest.raises(ValueError, match="record_signals asks for a draft with signals, but this model has none"):
        SpecExit.load(tiny / "target").generate(QUESTION, record_signals=True)


def test_log_probabilities_are_kept_for_every_token(model, tiny):
    answer = model.generate(QUESTION, method="eagle3", logprobs=2, max_new_tokens=16)
    request = Request("generate", answer.prompt_ids, 0)
    outcome = by_engine(model, tiny, "eagle3", request, max_new_tokens=16, logprobs=2)
    assert answer.ids == outcome.ids and answer.logprobs.best.shape == (len(answer.ids), 2)
    np.testing.assert_array_equal(answer.logprobs.tokens, outcome.logs.chosen)
    here = answer.logprobs.best[:, 0] == np.asarray(answer.ids)
    assert here.any() and (answer.logprobs.tokens[here] == answer.logprobs.best_logs[here, 0]).all()
    assert (np.diff(answer.logprobs.best_logs, axis=1) <= 0).all()
    assert model.generate(QUESTION, method="eagle3", max_new_tokens=16).logprobs is None
    with pytest.raises(ValueError, match="logprobs must be at least 0"):
        model.generate(QUESTION, logprobs=-1)


def test_many_are_each_what_they_are_alone(model):
    prompts = [QUESTION, [{"role": "user", "content": "3*4?"}], chat_ids(model.session, "4+4?"), QUESTION]
    found = model.generate_many(prompts, slots=2, max_new_tokens=16)
    assert [answer.id for answer in found] == ["0", "1", "2", "3"]
    assert found[0].ids != found[3].ids  # of one prompt twice, two samples
    alone = [model.generate(prompts[place], id=str(place), max_new_tokens=16) for place in (1, 2)]
    same = [dataclasses.replace(answer, usage=None, exit=None) for answer in (*found[1:3], *alone)]
    assert same[:2] == same[2:]
    assert [answer.exit and answer.exit.token for answer in found[1:3]] == [
        one.exit and one.exit.token for one in alone
    ]
    assert model.generate_many([]) == []
    named = model.generate_many(prompts[:1], ids=["3"], slots=1, max_new_tokens=16)
    assert named[0].ids == found[3].ids


def test_a_conversation_writes_one_answer_at_a_time(model):
    talk = model.conversation(context=90, method="eagle3", max_new_tokens=8)
    pieces = talk.say(QUESTION)
    next(pieces)
    with pytest.raises(ValueError, match="An answer of this conversation is still being written: read it to its end"):
        talk.ask("3*4?")
    answer = list(pieces)[-1].answer
    assert answer.ids == model.conversation(context=90, method="eagle3", max_new_tokens=8).ask(QUESTION).ids
    assert [one["content"] for one in talk.messages if one["role"] == "user"] == [QUESTION]
    cut = talk.say("3*4?")
    next(cut)
    cut.close()
    assert talk.ask("4+4?").ids and len(talk.messages) == 6
    for message, error in (([1, 2, 3], "A message is a text, not list"), ("\ud800", "not valid Unicode")):
        with pytest.raises((TypeError, ValueError), match=error):
            talk.say(message)
    with pytest.raises(ValueError, match="The first prompt has .* but the conversation's context is 20: shorten"):
        model.conversation(context=20).ask("Count the legs. " * 4)


def test_what_is_said_of_a_method_whose_exits_are_not_taken(model):
    assert model.conversation(exits=False).why.endswith("but no exit is taken (exits=False)")
    assert not model.plan(QUESTION, method="eagle3", exits=False).why.endswith("(exits=False)")


def test_ids_of_a_prompt_may_be_an_array(model):
    ids = chat_ids(model.session, QUESTION)
    expected = model.generate(ids, max_new_tokens=8).ids
    assert model.generate(np.array(ids), max_new_tokens=8).ids == expected
    assert model.generate_many([jnp.array(ids)], ids=["generate"], max_new_tokens=8)[0].ids == expected


def test_a_conversation_keeps_what_it_has_read(model):
    talk = model.conversation(context=90, method="eagle3", max_new_tokens=8)
    first = talk.ask(QUESTION)
    assert talk.kept == (0, first.usage.prompt_tokens)
    pieces = list(talk.say("3*4?"))
    assert "".join(piece.text for piece in pieces) == pieces[-1].answer.written and pieces[0].thinking
    assert 0 < talk.kept[0] < talk.kept[1] and len(talk.messages) == 4
    assert talk.messages[0] == {"role": "user", "content": QUESTION}
    assert talk.why.startswith("method eagle3: ")


LOADS = [
    ({"drafts": "x"}, TypeError, "SpecExit.load takes no argument 'drafts' (did you mean 'draft'?): it takes target, draft,"),
    ({"target": 3}, TypeError, "target is a path, or a name on the hub, not 3."),
    ({"target": "FOLDER/target", "policy": "p.json"}, ValueError, "A policy reads the signals of a draft: give draft=FOLDER"),
    ({"dtype": "float8"}, ValueError, "dtype is 'float8': choose among float32, bfloat16, float16."),
    ({"attention": "cudnn"}, ValueError, "attention is 'cudnn': choose among xla, pallas."),
    ({"mesh": (1, 2)}, TypeError, "mesh is a jax.sharding.Mesh or 3 whole numbers (data, fsdp, tensor), not (1, 2)."),
    ({"mesh": "1,1,1"}, TypeError, "mesh is a jax.sharding.Mesh or 3 whole numbers"),
    ({"mesh": (3, 1, 1)}, ValueError, "does not cover 8 devices"),
    ({"tree": (3, 2)}, TypeError, "tree is three whole numbers (depth, top_k, total), not (3, 2)."),
    ({"tree": (1, 2, 9)}, ValueError, "its total must be between 1 and that, not 9."),
    ({"draft_tokens": -1}, ValueError, "draft_tokens must be 0 or more, but it is -1."),
    ({"draft_tokens": 2.5}, TypeError, "draft_tokens must be a whole number, not 2.5."),
    ({"exit_rule": "never"}, ValueError, "Unknown exit rule 'never': choose 'default' or 'released'."),
    ({"smoother": "median"}, ValueError, "median"),
    ({"target": "FOLDER/nowhere"}, FileNotFoundError, "nowhere"),
    ({"policy": "FOLDER/nowhere.json"}, FileNotFoundError, "nowhere.json: no such policy"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "kind", "sentence"), LOADS, ids=[str(arguments) for arguments, *_ in LOADS])
def test_wrong_arguments_of_load_get_one_sentence(tiny, arguments, kind, sentence):
    arguments = {
        name: value.replace("FOLDER", str(tiny)) if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    if "target" not in arguments:
        arguments = {"target": tiny / "target", "draft": tiny / "draft", **arguments}
    with pytest.raises(kind) as error:
        SpecExit.load(**arguments)
    assert sentence in str(error.value) and "\n" not in str(error.value)


REQUESTS = [
    (QUESTION, {"temprature": 1}, TypeError, "SpecExit.generate takes no argument 'temprature' (did you mean 'temperature'?): "),
    (QUESTION, {"method": "specexti"}, ValueError, "There is no method 'specexti': choose among think, nothink,"),
    (QUESTION, {"temperature": -1}, ValueError, "temperature must be between 0 (greedy) and 1e+30, but it is -1.0."),
    (QUESTION, {"temperature": float("nan")}, ValueError, "temperature must be between 0"),
    (QUESTION, {"temperature": "0.6"}, TypeError, "temperature must be a number, not '0.6'."),
    (QUESTION, {"record_signals": 1}, TypeError, "record_signals must be True or False, not 1."),
    (QUESTION, {"id": 5.0}, TypeError, "An id is a text, not 5.0."),
    ("\ud800", {}, ValueError, "The prompt is not valid Unicode: character 0 is half of a surrogate pair."),
    (QUESTION, {"exits": "no"}, TypeError, "exits must be True or False, not 'no'."),
    (QUESTION, {"temperature": True}, TypeError, "temperature must be a number, not True."),
    (QUESTION, {"top_k": -1}, ValueError, "top_k must be at least 0, but it is -1."),
    (QUESTION, {"top_k": 2.5}, TypeError, "top_k must be a whole number, not 2.5."),
    (QUESTION, {"top_p": 0}, ValueError, "top_p must be in (0, 1], but it is 0.0."),
    (QUESTION, {"top_p": 1.5}, ValueError, "top_p must be in (0, 1], but it is 1.5."),
    (QUESTION, {"min_p": 2}, ValueError, "min_p must be in [0, 1], but it is 2.0."),
    (QUESTION, {"repetition_penalty": 0}, ValueError, "repetition_penalty must be above 0 (1 is none), but it is 0.0."),
    (QUESTION, {"rule": "lucky"}, ValueError, "rule must be one of keyed, rejection, but it is 'lucky'."),
    (QUESTION, {"max_new_tokens": 0}, ValueError, "max_new_tokens must be at least 1, but it is 0."),
    (QUESTION, {"max_new_tokens": 1.0}, TypeError, "max_new_tokens must be a whole number, not 1.0."),
    (QUESTION, {"seed": "x"}, TypeError, "seed must be a whole number, not 'x'."),
    (" ", {}, ValueError, "The prompt is empty: give a question."),
    ([], {}, ValueError, "The prompt is empty: give a text, a list of messages"),
    (3, {}, TypeError, "A prompt is a text, a list of messages such as {'role': 'user', 'content': '…'}, or a list of"),
    (b"x", {}, TypeError, "token ids, not bytes."),
    ({"role": "user", "content": "x"}, {}, TypeError, "token ids, not dict."),
    (["x"], {}, TypeError, "but this list holds 'x'."),
    ([{"role": "user"}], {}, ValueError, "A message holds the texts 'role' and 'content', but one is {'role': 'user'}."),
    ([{"role": "assistant", "content": "x"}], {}, ValueError, "The last message is the assistant's"),
    ([1, 5000], {}, ValueError, "holds token 5000, but the vocabulary has ids from 0 to"),
    ([1] * 96, {}, ValueError, "has 96 tokens, which leave no room in the target's context of 96"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "settings", "kind", "sentence"), REQUESTS)
def test_wrong_requests_get_one_sentence(model, prompt, settings, kind, sentence):
    with pytest.raises(kind) as error:
        model.generate(prompt, **settings)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_what_only_some_functions_take_is_checked_there(model, tiny):
    with pytest.raises(TypeError, match=r"SpecExit.stream takes no argument 'slots': it takes temperature, .*, id\."):
        model.stream(QUESTION, slots=2)
    for slots in (0, 1.5):
        with pytest.raises((TypeError, ValueError), match="slots must be"):
            model.generate_many([QUESTION], slots=slots)
    with pytest.raises(TypeError, match="not one str: generate answers a single one"):
        model.generate_many(QUESTION)
    with pytest.raises(TypeError, match="this is one conversation: generate answers a single one"):
        model.generate_many([{"role": "user", "content": "x"}])
    with pytest.raises(ValueError, match="There are 2 prompts and 1 ids: give one id a prompt"):
        model.generate_many([QUESTION] * 2, ids=["a"])
    with pytest.raises(TypeError, match="ids are a list of texts, one a prompt, not 'ab'"):
        model.generate_many([QUESTION] * 2, ids="ab")
    with pytest.raises(TypeError, match="ids are a list of texts, one a prompt, not 5"):
        model.generate_many([QUESTION] * 2, ids=5)
    with pytest.raises(
        ValueError, match="2 requests have the id 'a' and the seed 0: a request's noise depends on them"
    ):
        model.answers([QUESTION] * 2, ids=["a", "a"])
    with pytest.raises(TypeError, match=r"SpecExit.answers takes no argument 'foo'"):
        model.answers([QUESTION], foo=1)
    with pytest.raises(ValueError, match="context must be at least 2, but it is 1"):
        model.conversation(context=1)
    alone = SpecExit.load(tiny / "target")
    assert alone.plan(QUESTION).method == "think"
    for method in ("specexit", "eagle3"):
        with pytest.raises(ValueError, match=f"Method '{method}' needs a draft model: give one with draft=FOLDER"):
            alone.plan(QUESTION, method=method)


def test_numbers_of_numpy_are_numbers(model):
    plan = model.plan(QUESTION, temperature=np.float32(0.5), top_k=np.int64(3), max_new_tokens=np.int32(9))
    assert plan.sampling == Sampling(0.5, 3) and plan.max_new_tokens == 9
