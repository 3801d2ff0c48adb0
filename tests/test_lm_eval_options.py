"""What a task of lm-evaluation-harness, a model argument and a chat template may ask for; what is refused, and how."""

import dataclasses
import logging
import shutil

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.registry import get_model
from lm_eval_case import GREEDY, WARM, instance, prompts

from specexit_jax import notes
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import bound
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.session import chat_ids
from specexit_jax.evaluation.lm_eval.chat import chat_text, without_system
from specexit_jax.evaluation.lm_eval.generation import generation_of
from specexit_jax.evaluation.lm_eval.model import SpecExitLM
from specexit_jax.exits.policy_file import load_policy


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
    monkeypatch.setattr("specexit_jax.evaluation.lm_eval.model.decode_prepared", lambda *a, **k: pytest.fail("decoded"))
    asked = [instance("3*4?", GREEDY, 0), instance("3*4?", WARM, 1)]
    small = dataclasses.replace(session, target=dataclasses.replace(session.target, vocab_size=10))
    with pytest.raises(ValueError, match="'t/0' holds token [0-9]+, but the vocabulary has ids from 0 to 9"):
        SpecExitLM(small, specexit).generate_until(asked)


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
    # Whatever set its level before.
    monkeypatch.setattr(logger, "warning", lambda text, *names: said.append(text % names))
    monkeypatch.setattr("specexit_jax.evaluation.lm_eval.model.decode_prepared", lambda *a, **k: iter(()))
    SpecExitLM(session, specexit).generate_until([instance("3*4=", GREEDY)])
    assert len(said) == 1 and "'specexit' never ends it" in said[0]
    SpecExitLM(session, make_method(session, "think")).generate_until([instance("3*4=", GREEDY)])
    SpecExitLM(session, specexit).generate_until([instance(prompts(session)[0], GREEDY)])
    assert len(said) == 1
