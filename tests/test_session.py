"""Loading a model folder: settings of its generation config, and a tokenizer with more ids than the model."""

import json
import shutil

import pytest

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.checking import check
from specexit_jax.engine.generation_config import (
    NEW_TOKENS,
    max_new_tokens_of,
    not_computed,
    read_defaults,
    sampling_of,
)
from specexit_jax.engine.requests import Request
from specexit_jax.engine.session import load_session
from specexit_jax.notes import _SAID


@pytest.fixture
def target(tiny, tmp_path):
    _SAID.clear()
    return shutil.copytree(tiny / "target", tmp_path / "target")


@pytest.mark.parametrize(
    ("asked", "sampling", "new"),
    [
        ({"do_sample": True, "temperature": None, "top_p": None, "top_k": None}, Sampling(1.0), NEW_TOKENS),
        ({"temperature": None, "top_p": None}, Sampling(), NEW_TOKENS),
        ({"do_sample": None, "temperature": 0.6, "top_k": -1}, Sampling(0.6), NEW_TOKENS),
        ({"do_sample": False, "temperature": 0.6, "max_new_tokens": 7}, Sampling(), 7),
        ({"repetition_penalty": 1.05, "temperature": 0}, Sampling(repetition_penalty=1.05), NEW_TOKENS),
        ({"repetition_penalty": None, "do_sample": False}, Sampling(), NEW_TOKENS),
        ({"do_sample": True, "min_p": None, "max_new_tokens": None}, Sampling(1.0), NEW_TOKENS),
    ],
)
def test_a_null_is_as_if_it_were_absent(asked, sampling, new, tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(asked | {"eos_token_id": None}))
    defaults = read_defaults(tmp_path)
    assert (sampling_of(defaults), max_new_tokens_of(defaults)) == (sampling, new)
    assert "eos_token_id" not in defaults and not_computed(defaults) == []


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"do_sample": True, "temperature": "warm"}, "sets temperature to 'warm'; it is a number"),
        ({"do_sample": True, "top_k": 2.5}, "sets top_k to 2.5; it is a whole number"),
        ({"repetition_penalty": 0}, "generation_config.json: repetition_penalty must be above 0"),
        ({"do_sample": True, "top_p": 3}, r"generation_config.json: top_p must be in \(0, 1\]"),
        ({"max_new_tokens": -3}, "sets max_new_tokens to -3"),
    ],
)
def test_values_out_of_range_name_their_file(asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampling_of(asked), max_new_tokens_of(asked)


def test_what_is_not_computed_is_named_where_it_asks_for_anything():
    """Against transformers' own neutral values, and vLLM's of the penalties that it alone has."""
    asked = {
        "presence_penalty": 1.5,
        "frequency_penalty": 0.5,
        "no_repeat_ngram_size": 3,
        "bad_words_ids": [[5]],
        "forced_eos_token_id": 2,
        "suppress_tokens": [1, 2],
        "num_beams": 4,
        "min_new_tokens": 9,
        "typical_p": 0.9,
        "epsilon_cutoff": 3e-4,
    }
    named = not_computed(asked | {"do_sample": True, "sequence_bias": {}})
    assert named == sorted(f"{name}={value}".replace(" ", "") for name, value in asked.items())
    assert not_computed({"do_sample": False, "typical_p": 0.9, "epsilon_cutoff": 3e-4}) == []
    neutral = {
        "repetition_penalty": 1.0,
        "num_beams": 1,
        "no_repeat_ngram_size": 0,
        "suppress_tokens": [],
        "min_length": 0,
    }
    neutral |= {"typical_p": 1.0, "guidance_scale": 1, "token_healing": False, "max_length": 20, "do_sample": True}
    assert not_computed(neutral) == []
    assert not_computed({"max_length": 512}) == ["max_length=512"]
    assert not_computed({"max_length": 512, "max_new_tokens": 9}) == []


def test_the_line_is_said_once(target, capsys):
    path = target / "generation_config.json"
    path.write_text(json.dumps({"do_sample": True, "presence_penalty": 1.1, "temperature": None}))
    assert load_session(target).sampling == Sampling(1.0)
    load_session(target)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"note: {path} asks for presence_penalty=1.1, which this engine does not compute: ignored."


def test_a_tokenizer_may_know_more_ids_than_the_model(target, capsys):
    """A prompt with such an id is refused. If `</think>` is such an id, the model counts as one that does not think."""
    session = load_session(target)
    size, known = session.target.vocab_size, len(session.tokenizer)
    assert size == known
    session.tokenizer.add_tokens(["<tool>", "<call>"])
    session.tokenizer.save_pretrained(target)
    again = load_session(target)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has {size + 2} ids, but the model only {size}" in line and "think" not in line
    assert again.token_texts == session.token_texts and again.thinking == session.thinking
    check(again, Request("a", (size - 1,)))
    with pytest.raises(ValueError, match=f"holds token {size + 1}, but the vocabulary has ids from 0 to {size - 1}"):
        check(again, Request("a", (5, again.tokenizer.convert_tokens_to_ids("<call>"))))


def test_thinking_and_ends_that_the_model_cannot_write(target, capsys):
    """Ids that are missing among its own: no thinking; no end at all is refused."""
    path = target / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    (added,) = (token for token in tokenizer["added_tokens"] if token["content"] == "</think>")
    added["id"] = words["</think>"] = len(words) + 3
    path.write_text(json.dumps(tokenizer))
    session = load_session(target)
    assert session.thinking is None and len(session.token_texts) == session.target.vocab_size
    assert "taken for a model that does not think" in capsys.readouterr().err
    size = session.target.vocab_size
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": [size + 1, 3]}))
    assert load_session(target).stop_ids == (3,)
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": size + 1}))
    with pytest.raises(ValueError, match=f"end-of-text token {size + 1}, but the model's ids end at {size - 1}"):
        load_session(target)


def test_attention_is_of_both_models_and_leaves_their_digests(tiny):
    plain, kernels = (load_session(tiny / "target", tiny / "draft", attention=each) for each in ("xla", "pallas"))
    assert (plain.target.attention, plain.draft.attention) == ("xla", "xla")
    assert (kernels.target.attention, kernels.draft.attention) == ("pallas", "pallas")
    assert (kernels.target_digest, kernels.draft_digest) == (plain.target_digest, plain.draft_digest)
