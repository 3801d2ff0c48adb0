"""lm-evaluation-harness runs our methods: the texts of our own runs, cut where a task asks, in the order of its requests."""

import dataclasses
import itertools
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.model import CachingLM
from lm_eval_case import GREEDY, WARM, alone, instance, prompts

from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.session import text_of
from specexit_jax.evaluation.lm_eval.generation import answer_of
from specexit_jax.evaluation.lm_eval.model import SpecExitLM


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
