"""lm-evaluation-harness runs our methods: the texts of our own runs, cut where a task asks, in the order of its requests."""

import dataclasses
import itertools
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from specexit_jax import notes
from specexit_jax.data.splits import sample
from specexit_jax.data.world.tasks import final_answer
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import bound
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.requests import Outcome, Request
from specexit_jax.engine.run import run
from specexit_jax.engine.session import EMBEDDED, chat_ids, load_session, text_of
from specexit_jax.evaluation.lm_eval.chat import chat_text, without_system
from specexit_jax.evaluation.lm_eval.generation import answer_of, generation_of
from specexit_jax.evaluation.lm_eval.model import SpecExitLM
from specexit_jax.evaluation.lm_eval.report import decoding_table
from specexit_jax.evaluation.lm_eval.run import named
from specexit_jax.exits.policy_file import load_policy
from specexit_jax.models.target import Target

ROOT = Path(__file__).resolve().parent.parent
GREEDY = {"until": [], "do_sample": False, "temperature": 0.0}
WARM = {"until": [], "do_sample": True, "temperature": 1.0}


def instance(context: str, kwargs: dict, doc: int = 0, task: str = "t") -> Instance:
    return Instance("generate_until", {}, (context, kwargs), 0, (task, doc, 1))


def prompts(session, questions=("Count the legs.", "3*4?", "4+4+4?", "12-4?", "Is 3 odd?")) -> list[str]:
    return [chat_text(session, [{"role": "user", "content": question}]) for question in questions]


def alone(session, method, text: str, name: str, kwargs: dict, most: int | None = None) -> Outcome:
    """The same prompt by a run of our own."""
    ids = tuple(session.tokenizer.encode(text, add_special_tokens=False))
    sampling = Sampling(temperature=kwargs["temperature"])
    (outcome,) = run(session, [Request(name, ids)], method, sampling=sampling, max_new_tokens=most)
    return outcome


def written(session, outcome: Outcome) -> str:
    """Its answer, by ids instead of by text."""
    if outcome.think_end is None:
        return ""
    return text_of(session, outcome.ids[outcome.think_end + len(session.end_think_ids) :]).lstrip()


def test_texts_are_those_of_our_own_runs_in_the_order_of_the_requests(session, specexit):
    short = {**WARM, "max_gen_toks": 9}
    asked = [
        instance(text, dict(kwargs), doc)
        for doc, (text, kwargs) in enumerate(zip(prompts(session), (WARM, GREEDY, short, WARM, WARM), strict=True))
    ]
    expected = []
    for one in asked:
        most = one.args[1].get("max_gen_toks")
        expected.append(alone(session, specexit, one.args[0], f"t/{one.doc_id}", one.args[1], most))
    texts = [text_of(session, outcome.ids) for outcome in expected]
    assert len(set(texts)) == len(texts)
    model = SpecExitLM(session, specexit, keep_thinking=True)
    assert model.generate_until(asked) == texts
    told = {outcome.id: outcome.ids for outcome in model.outcomes["t"]}
    assert told == {outcome.id: outcome.ids for outcome in expected}
    assert len(told["t/2"]) <= 9 < max(map(len, told.values()))
    # the answers alone, from refilled slots, which end out of order
    warm = [place for place, one in enumerate(asked) if one.args[1] == WARM]
    model = SpecExitLM(session, specexit, batch_size=2)
    answers = [written(session, expected[place]) for place in warm]
    assert model.generate_until([asked[place] for place in warm]) == answers and len(set(answers)) > 1


def test_repeats_are_sampled_anew_and_a_document_keeps_its_noise(session, specexit):
    text = prompts(session)[0]
    model = SpecExitLM(session, specexit, keep_thinking=True)
    one = instance(text, WARM, 7)
    texts = model.generate_until([one, one, one])
    assert [outcome.id for outcome in model.outcomes["t"]] == ["t/7", "t/7/sample-1", "t/7/sample-2"]
    assert len(set(texts)) > 1
    assert model.generate_until([instance(text, WARM, 1), one])[1] == texts[0]
    assert SpecExitLM(session, specexit, seed=1, keep_thinking=True).generate_until([one]) != texts[:1]


def test_a_string_ends_the_answer_wherever_tokens_fall_and_never_the_thinking(session, specexit):
    asked = [instance(text, dict(WARM), doc) for doc, text in enumerate(prompts(session))]
    model = SpecExitLM(session, specexit)
    answers = model.generate_until(asked)
    place = max(range(len(answers)), key=lambda i: len(answers[i]))
    answer, outcome = answers[place], model.outcomes["t"][place]
    pieces = [session.token_texts[token] for token in outcome.ids[outcome.think_end + 2 :]]
    # the end of one token and the beginning of the next
    stops = [a[-1] + b[0] for a, b in itertools.pairwise(pieces) if a and b and "\ufffd" not in a + b]
    stop = next(stop for stop in stops if not any(stop in piece for piece in pieces))

    def again(until, keep_thinking: bool = False) -> str:
        one = instance(asked[place].args[0], {**WARM, "until": until}, place)
        return SpecExitLM(session, specexit, keep_thinking=keep_thinking).generate_until([one])[0]

    assert again([stop, "", "never said"]) == answer[: answer.index(stop)] != answer
    whole = again([], keep_thinking=True)
    thought = whole[: -len(answer)]
    assert whole == text_of(session, outcome.ids) == thought + answer
    early = thought[:3]
    assert again(early) == answer.split(early)[0]
    assert again([early, stop], keep_thinking=True).startswith(thought)


def outcome_of_text(session, text: str, prompt: str) -> Outcome:
    ids = tuple(session.tokenizer.encode(text, add_special_tokens=False))
    start = tuple(session.tokenizer.encode(prompt, add_special_tokens=False))
    end = session.end_think_ids[0]
    closed = ids.index(end) if end in ids else None
    return Outcome("r", 0, start, ids, True, closed, 0, None, None, 1, (1,), 0.1)


@pytest.mark.parametrize(
    ("prompt", "text", "answer", "kept"),
    [
        ("<think>\n", "3*4=12.\n\n</think>\n\n12<|end|>", "12", "3*4=12.\n\n</think>\n\n12"),
        ("<think>\n", "3*4=12.\n\nSo the", "", "3*4=12.\n\nSo the"),
        ("<think>\n</think>", " 12Q: 3", "12", " 12"),
        ("<think>\n</think>", "<think>3*4</think> 12", "12", "<think>3*4</think> 12"),
        ("3*4?", "4<think>3*4", "", "4<think>3*4"),
        ("<think>", "Q: 3\n\n</think>4</think>12", "12", "Q: 3\n\n</think>4</think>12"),
    ],
)
def test_the_answer_is_what_follows_the_thinking(session, prompt, text, answer, kept):
    outcome = outcome_of_text(session, text, prompt)
    assert answer_of(session, outcome, ("Q:",)) == answer
    assert answer_of(session, outcome, ("Q:",), keep_thinking=True) == kept
    plain = dataclasses.replace(session, thinking=None)
    assert answer_of(plain, outcome, ("Q:",)) == text_of(session, outcome.ids).split("Q:")[0]


@pytest.mark.parametrize(
    ("kwargs", "settings", "sampling", "most"),
    [
        ({"do_sample": False, "temperature": 0.7}, {}, Sampling(), 48),
        ({}, {}, Sampling(), 48),
        ({"temperature": 0.6, "top_p": 0.9}, {}, Sampling(0.6, top_p=0.9), 48),
        ({"do_sample": True}, {}, Sampling(1.0), 48),
        ({"do_sample": True, "temperature": 0.0}, {}, Sampling(), 48),
        ({"do_sample": True, "top_k": 5, "min_p": 0.1, "num_beams": 1}, {}, Sampling(1.0, 5, 1.0, 0.1), 48),
        ({"max_new_tokens": 7}, {"temperature": 0.3}, Sampling(0.3), 7),
        ({"max_gen_toks": 7}, {"max_gen_toks": 9}, Sampling(), 9),
    ],
)
def test_options_of_a_task_are_ours(session, kwargs, settings, sampling, most):
    found = generation_of(session, {**kwargs, "until": ["a", ""]}, **settings)
    assert (found.sampling, found.most, found.until) == (sampling, most, ("a",))


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"num_beams": 10}, "num_beams"),
        ({"no_repeat_ngram_size": 3}, "'no_repeat_ngram_size' was asked for, which this engine does not have"),
        ({"max_gen_toks": 0}, "max_gen_toks must be at least 1"),
    ],
)
def test_options_that_we_do_not_have_are_refused(session, kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        generation_of(session, kwargs)


def test_every_prompt_is_checked_before_any_work(session, specexit, monkeypatch):
    monkeypatch.setattr("specexit_jax.evaluation.lm_eval.model.stream", lambda *a, **k: pytest.fail("decoded"))
    asked = [instance("3*4?", GREEDY, 0), instance("3*4?", WARM, 1)]
    small = dataclasses.replace(session, target=dataclasses.replace(session.target, vocab_size=10))
    with pytest.raises(ValueError, match="'t/0' holds token [0-9]+, but the vocabulary has ids from 0 to 9"):
        SpecExitLM(small, specexit).generate_until(asked)


def test_a_prompt_that_fills_the_context_is_unanswered_and_holds_up_no_other(session, specexit, capsys):
    asked = [instance("3*4?" * 40, dict(WARM), 0), instance("3*4?", GREEDY | {"max_gen_toks": 200}, 1)]
    model = SpecExitLM(session, specexit)
    assert model.generate_until(asked)[0] == ""
    found = {one.id: one for one in model.outcomes["t"]}
    assert found["t/0"].cut and found["t/0"].ids == () and len(found["t/1"].ids) > 0
    assert "1 of 2 prompts fill the target's context of 96 tokens (the first: 't/0'" in capsys.readouterr().err
    assert found["t/1"].finished or len(found["t/1"].prompt_ids) + len(found["t/1"].ids) == 96
    numbers = model.get_model_info()["specexit"]["tasks"]["t"]
    assert numbers["unfinished_rate"] >= 0.5


def test_answers_are_cached_one_by_one(session, specexit, tmp_path, monkeypatch):
    asked = [instance(text, dict(GREEDY), doc) for doc, text in enumerate(prompts(session))]
    with monkeypatch.context() as patched:
        # a kill after two answers
        judged = []

        def two(*arguments, **settings):
            if len(judged) == 2:
                raise KeyboardInterrupt
            judged.append(answer_of(*arguments, **settings))
            return judged[-1]

        patched.setattr("specexit_jax.evaluation.lm_eval.model.answer_of", two)
        with pytest.raises(KeyboardInterrupt):
            cached(session, specexit, tmp_path).generate_until(asked)
    again = cached(session, specexit, tmp_path)
    texts = again.generate_until(asked)
    assert len(again.lm.outcomes["t"]) == len(asked) - 2
    assert texts == SpecExitLM(session, specexit).generate_until(asked)


def cached(session, method, folder: Path) -> CachingLM:
    return CachingLM(SpecExitLM(session, method), str(folder / "answers.db"))


def test_chat_prompts_are_ours(session):
    turns = [
        {"role": "user", "content": "3*4?"},
        {"role": "assistant", "content": "12"},
        {"role": "user", "content": "4+4?"},
    ]
    model = SpecExitLM(session, make_method(session, "think"))
    for history in (turns[:1], turns):
        assert model.tok_encode(model.apply_chat_template(history)) == chat_ids(session, history)
    begun = model.apply_chat_template([turns[0], {"role": "assistant", "content": "So"}], add_generation_prompt=False)
    assert begun == "<|user|> 3*4?<|assistant|>So"
    told = [{"role": "system", "content": "Be brief."}, *turns]
    assert without_system(told)[0] == {"role": "user", "content": "Be brief.\n\n3*4?"}
    assert model.apply_chat_template(told) == model.apply_chat_template(without_system(told))
    assert turns[0]["content"] == "3*4?"


@pytest.mark.parametrize("refuses", [True, False])
def test_a_system_role_is_the_templates_own_where_it_has_one(session, refuses, monkeypatch):
    said = "{{ raise_exception('no system') }}" if refuses else "[{{ message.content }}]"
    template = (
        "{% for message in messages %}{% if message.role == 'system' %}"
        + said
        + "{% else %}<|user|>{{ message.content }}{% endif %}{% endfor %}<|assistant|>"
    )
    monkeypatch.setattr(session.tokenizer, "chat_template", template)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3*4?"}]
    user = "<|user|>Be brief.\n\n3*4?" if refuses else "[Be brief.]<|user|>3*4?"
    assert chat_text(session, turns) == f"{user}<|assistant|><think>\n"
    monkeypatch.setattr(session.tokenizer, "chat_template", None)
    with pytest.raises(ValueError, match="has no chat template"):
        chat_text(session, turns)


def test_methods_without_open_thinking_are_warned_of(session, specexit, monkeypatch):
    said = []
    logger = logging.getLogger("specexit_jax.evaluation.lm_eval.model")
    monkeypatch.setattr(
        logger, "warning", lambda text, *names: said.append(text % names)
    )  # whatever set its level before
    monkeypatch.setattr("specexit_jax.evaluation.lm_eval.model.stream", lambda *a, **k: iter(()))
    SpecExitLM(session, specexit).generate_until([instance("3*4=", GREEDY)])
    assert len(said) == 1 and "'specexit' never ends it" in said[0]
    SpecExitLM(session, make_method(session, "think")).generate_until([instance("3*4=", GREEDY)])
    SpecExitLM(session, specexit).generate_until([instance(prompts(session)[0], GREEDY)])
    assert len(said) == 1


def scored(task: str, *arguments: str) -> Instance:
    return Instance("loglikelihood", {}, arguments, 0, (task, 0, 1))


def log_probabilities(session, ids: list[int]) -> np.ndarray:
    """float [T - 1, V]: of the token after each. One row; what lies behind it is noise, of which it knows nothing."""
    tokens = np.random.default_rng(0).integers(0, 300, (1, session.target.max_position), np.int32)
    tokens[0, : len(ids) - 1] = ids[:-1]
    positions = np.arange(tokens.shape[1], dtype=np.int32)[None]
    logits = Target(session.target).apply({"params": session.params.target}, tokens, positions).logits
    return np.asarray(jax.nn.log_softmax(logits[0]))


def test_loglikelihoods_are_the_targets_whatever_the_method(session, specexit, monkeypatch):
    monkeypatch.setattr("specexit_jax.evaluation.lm_eval.loglikelihood.SHORTEST", 16)  # several shapes
    model = SpecExitLM(session, make_method(session, "nothink"), batch_size=2)
    pairs = [("Count the legs of 3 dogs.", " 12"), ("3*4=", "12.\n\nSo"), ("", "So the answer"), ("3*4=12. So ", "x")]
    found = model.loglikelihood([scored("t", *pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
        ids = model.tok_encode(context + continuation)
        before = len(model.tok_encode(context.rstrip())) if context else 0
        ids, start = (ids, before) if context else ([model.prefix_token_id, *ids], 1)
        logs = log_probabilities(session, ids)
        own = range(start, len(ids))
        assert value == pytest.approx(sum(float(logs[i - 1, ids[i]]) for i in own), abs=1e-4)
        assert greedy == all(logs[i - 1].argmax() == ids[i] for i in own)
    # what greedy decoding writes is greedy
    outcome = alone(session, specexit, "3*4=", "r", GREEDY, 3)
    requests = [(("", ""), list(outcome.prompt_ids), list(outcome.ids))]
    assert model._loglikelihood_tokens(requests)[0][1]
    assert not all(greedy for _, greedy in found)


def test_answers_behind_open_thinking_have_no_loglikelihood_but_those_behind_closed_have(session, specexit):
    (text,) = prompts(session, ("3*4?",))
    with pytest.raises(ValueError, match="the chat template opens the thinking: take method=nothink"):
        SpecExitLM(session, specexit).loglikelihood([scored("t", text, "12")], disable_tqdm=True)
    model = SpecExitLM(session, make_method(session, "nothink"))
    (found,) = model.loglikelihood([scored("t", text, "12")], disable_tqdm=True)
    closed = session.thinking.close(model.tok_encode(text))
    ids = closed + model.tok_encode(text + "12")[len(model.tok_encode(text)) :]
    logs = log_probabilities(session, ids)
    assert found[0] == pytest.approx(sum(float(logs[i - 1, ids[i]]) for i in range(len(closed), len(ids))), abs=1e-4)
    with pytest.raises(ValueError, match="does not fit the target's context of 96"):
        model.loglikelihood([scored("t", "3*4" * 40, "12")], disable_tqdm=True)


def test_a_long_text_is_scored_token_by_token_once(session, tmp_path):
    model = SpecExitLM(session, make_method(session, "think"))
    text = "3*4=12. So the answer is 12. " * 12
    ids = model.tok_encode(text)
    length = model.max_length
    assert len(ids) > 1.5 * length
    (found,) = CachingLM(model, str(tmp_path / "a.db")).loglikelihood_rolling([scored("t", text)])
    row = [model.prefix_token_id, *ids]
    expected = 0.0
    for start in range(0, len(ids), length):
        # the last window reaches back as far as the context allows
        end = min(start + length, len(ids))
        window = row[max(0, end - length) : end + 1]
        logs = log_probabilities(session, window)
        expected += sum(float(logs[i - 1, window[i]]) for i in range(len(window) - (end - start), len(window)))
    assert found == pytest.approx(expected, rel=1e-5)


def test_model_arguments_load_what_they_name(tiny, tmp_path):
    text = f"target={tiny / 'target'},draft={tiny / 'draft'},policy={tiny / 'policy.json'},draft_tokens=2,seed=3"
    model = get_model("specexit").create_from_arg_string(f"{text},temperature=0.5", {"batch_size": "4", "device": "x"})
    assert (model.method.name, model.method.draft_tokens, model.batch_size, model.seed) == ("specexit", 2, 4, 3)
    assert model.temperature == 0.5
    model = get_model("specexit").create_from_arg_obj({"target": str(tiny / "target"), "tensor": 2, "data": 4})
    assert (model.method.name, model.batch_size, model.session.mesh.size) == ("think", 1, 8)
    for wrong, sentence in (("batch_size=auto", "not 'auto'"), ("treads=2", "no model argument 'treads'")):
        with pytest.raises(ValueError, match=sentence):
            get_model("specexit").create_from_arg_string(f"target={tiny / 'target'},{wrong}")
    own = {"target": str(tiny / "target"), "draft": str(tiny / "draft")}
    model = get_model("specexit").create_from_arg_obj(own)
    assert model.method.name == "specexit" and model.policy_file == load_policy(tiny / "policy.json")
    own["draft"] = str(shutil.copytree(tiny / "draft", tmp_path / "draft"))
    assert get_model("specexit").create_from_arg_obj(own).method.name == "eagle3"
    with pytest.raises(ValueError, match="needs an exit policy"):
        get_model("specexit").create_from_arg_obj(own | {"method": "specexit"})


def test_generations_that_the_policy_was_not_made_for_are_told_of_or_refused(
    session, specexit, tiny, monkeypatch, capsys
):
    monkeypatch.setattr(notes, "_SAID", set())
    file = bound(load_policy(tiny / "policy.json"), session)
    model = SpecExitLM(session, specexit, policy_file=file)
    model._require_covered(session.sampling, session.max_new_tokens)
    assert not capsys.readouterr().err
    model._require_covered(Sampling(), 20)
    assert "temperature 0.0 instead of 1.0, max_new_tokens 20 instead of 48." in capsys.readouterr().err
    strict = SpecExitLM(session, specexit, policy_file=file, strict_policy=True)
    asked = [instance(prompts(session)[0], GREEDY)]
    with pytest.raises(ValueError, match=r"temperature 0.0 instead of 1.0.* \(strict_policy\)"):
        strict.generate_until(asked)
    text = f"target={tiny / 'target'},draft={tiny / 'draft'},policy={tiny / 'policy.json'},strict_policy=True"
    opened = get_model("specexit").create_from_arg_string(text)
    assert opened.strict_policy is True and opened.policy_file == load_policy(tiny / "policy.json")


class Asked(NamedTuple):
    question: str
    answer: str


def world(folder: Path, problems) -> Path:
    """A task of lm-eval's: the problems in a JSONL file, examples from the same file."""
    rows = [json.dumps({"question": one.question, "answer": one.answer}) + "\n" for one in problems]
    (folder / "problems.jsonl").write_text("".join(rows))
    files = {"test": str(folder / "problems.jsonl"), "train": str(folder / "problems.jsonl")}
    task = {
        "task": "world",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "output_type": "generate_until",
        "test_split": "test",
        "fewshot_split": "train",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n\n"], "do_sample": True, "temperature": 0.8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / "world.yaml").write_text(json.dumps(task))  # which is YAML
    return folder / "world.yaml"


@pytest.fixture(scope="module")
def bundled():
    session = load_session(EMBEDDED / "target", EMBEDDED / "draft")
    return session, make_method(session, "specexit", *read_policy(session, EMBEDDED / "policy.json"))


def evaluate(model: SpecExitLM, task: Path, monkeypatch, **options) -> dict:
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # which asks pip and the machine
    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(
        model, tasks=[str(task)], task_manager=manager, bootstrap_iters=0, apply_chat_template=True, **options
    )


def test_an_evaluation_judges_what_our_own_run_writes(bundled, tmp_path, monkeypatch):
    session, method = bundled
    problems = sample("test", 1)
    model = SpecExitLM(session, method, max_gen_toks=880)
    results = evaluate(model, world(tmp_path, problems), monkeypatch)
    requests = [Request(f"world/{i}", tuple(chat_ids(session, problem.question))) for i, problem in enumerate(problems)]
    own = run(session, requests, method, max_new_tokens=880)
    answers = [final_answer(text_of(session, outcome.ids)) for outcome in own]
    judged = results["samples"]["world"]
    assert [row["resps"] for row in judged] == [[[answer]] for answer in answers]
    right = [answer == problem.answer for answer, problem in zip(answers, problems, strict=True)]
    assert results["results"]["world"]["exact_match,none"] == np.mean(right) > 0.5
    numbers = results["config"]["specexit"]["tasks"]["world"]
    assert numbers["n"] == 6
    assert numbers["tokens_mean"] == np.mean([len(outcome.ids) for outcome in own])
    assert numbers["thinking_tokens_mean"] == np.mean([outcome.thinking_tokens for outcome in own])
    assert numbers["exit_rate"] == np.mean([outcome.exit is not None for outcome in own]) > 0.5
    assert numbers["unfinished_rate"] == 0 and numbers["latency_s_mean"] > 0
    steps = sum(sum(outcome.accepted) for outcome in own)
    assert numbers["tau_mean"] == pytest.approx(sum(o.tau * sum(o.accepted) for o in own) / steps)
    row = decoding_table("specexit", {"world": numbers}).splitlines()[-1].split(" | ")
    assert row[:3] == ["| world", "specexit", "6"] and row[-2] == f"{100 * numbers['exit_rate']:.0f}"


def test_examples_are_turns_of_the_conversation(bundled, tmp_path, monkeypatch):
    session, method = bundled
    problems = sample("test", 1)
    model, asked = SpecExitLM(session, method), []
    monkeypatch.setattr(model, "generate_until", lambda requests: asked.extend(requests) or [""] * len(requests))
    options = {"num_fewshot": 2, "fewshot_as_multiturn": True, "system_instruction": "Be brief.", "limit": 2}
    evaluate(model, world(tmp_path, problems), monkeypatch, **options)
    assert len(asked) == 2
    for one, problem in zip(asked, problems, strict=False):
        text = one.args[0]
        assert text.startswith("<|user|> Be brief.\n\n")
        assert text.count("<|user|>") == text.count("<|assistant|>") == 3 and text.count("<|end|>") == 2
        assert text.endswith(f"{problem.question}<|assistant|><think>\n")


def test_tasks_are_names_patterns_or_files(tmp_path):
    task = world(tmp_path, sample("test", 1)[:1])
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    assert named(manager, "world") == named(manager, "wor*") == ["world"]
    assert named(manager, str(task)) == [str(task)]
    with pytest.raises(ValueError, match="has no task 'wold', nor is it a file"):
        named(manager, "wold")


def launched(tmp_path: Path, *arguments: str, code: str = "from launch import door, lm_eval") -> tuple[int, str, str]:
    """launch.lm_eval in a process of its own: its flags are also those of other entry points."""
    line = f"{code}; door.define_config(); door.run(lm_eval.main)"
    command = [sys.executable, "-c", line, f"--config={ROOT / 'configs' / 'embedded.py'}", f"--workdir={tmp_path}"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_entry_point_prints_both_tables_and_writes_the_results(tiny, tmp_path):
    task = world(tmp_path, [Asked("3*4?", "12"), Asked("4+4?", "8"), Asked("4-3?", "1")])
    model = (f"--config.target={tiny / 'target'}", f"--config.draft={tiny / 'draft'}")
    options = (f"--tasks={task}", "--method=nothink", "--limit=2", "--max_gen_toks=12", "--temperature=0")
    code, out, err = launched(tmp_path, *model, *options)
    assert code == 0, err
    assert "exact_match" in out and "| world | nothink | 2 |" in out
    path = tmp_path / "lm_eval" / "nothink-world.json"
    assert out.rstrip().endswith(f"results: {path}")
    results = json.loads(path.read_text())
    value = results["results"]["world"]["exact_match,none"]
    (row,) = (line.split("|") for line in out.splitlines() if "exact_match" in line)
    assert row[1] == "world" and float(row[7]) == pytest.approx(value, abs=1e-4)
    told = results["config"]["specexit"]
    assert (told["method"], told["temperature"], told["max_gen_toks"]) == ("nothink", 0.0, 12)
    rows = [
        json.loads(line) for line in (tmp_path / "lm_eval" / "nothink-world.samples.jsonl").read_text().splitlines()
    ]
    assert [row["task"] for row in rows] == ["world"] * 2
    assert np.mean([row["exact_match"] for row in rows]) == value
    assert told["tasks"]["world"]["thinking_tokens_mean"] == 0


def test_without_the_harness_one_sentence_says_what_to_install(tmp_path):
    missing = "import sys; sys.modules['lm_eval'] = None; from launch import door, lm_eval"
    code, out, err = launched(tmp_path, "--tasks=world", code=missing)
    assert (code, out) == (1, "")
    assert err == "error: lm-evaluation-harness is not installed: pip install 'lm-eval>=0.4.13,<0.5'.\n"
