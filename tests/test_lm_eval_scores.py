"""Log-likelihoods for lm-evaluation-harness: those of the target, whatever the method."""

import jax
import numpy as np
import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval_case import GREEDY, alone, prompts

from specexit_jax.engine.methods import make_method
from specexit_jax.evaluation.lm_eval.model import SpecExitLM
from specexit_jax.models.target import Target


def scored(task: str, *arguments: str) -> Instance:
    return Instance("loglikelihood", {}, arguments, 0, (task, 0, 1))


def log_probabilities(session, ids: list[int]) -> np.ndarray:
    """Log-probabilities [T - 1, V] of the token after each, for one row. The padding is random and must have no effect."""
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
