"""One sentence for every mistake: wrong arguments, damaged folders, errors of other libraries."""

import importlib
import io
import json
import re
import zipfile
from pathlib import Path

import jax
import numpy
import pytest
from launch_case import PROMPT, call, folders
from safetensors import safe_open
from tiny_folders import write_policy

from launch import sentences

pytestmark = pytest.mark.usefixtures("unnoted")


def test_a_template_that_refuses_gets_one_sentence(broken, capsys, monkeypatch):
    for template in (
        "{{ raise_exception('a system message comes first') }}",
        "{% for m in messages %}",
        "{{ messages | no }}",
    ):
        (broken / "target" / "chat_template.jinja").write_text(template)
        code, _, err = call(capsys, monkeypatch, *folders(broken), PROMPT)
        assert code == 1 and err.startswith("error: The target's chat template cannot be applied: "), err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give one of --prompt=TEXT, --prompt_ids=1,2,3, --example=TASK and --prompts=FILE."),
        (
            [PROMPT, "--prompt_ids=1"],
            "Give one of --prompt=TEXT, --prompt_ids=1,2,3, --example=TASK and --prompts=FILE.",
        ),
        ([PROMPT, "--prompts=a.jsonl"], "Give one of --prompt=TEXT,"),
        (["--prompts=a.txt"], "--prompts reads .jsonl, .json, "),
        (["--prompts=a.jsonl", "--stream"], "--stream shows one prompt"),
        (["--prompts=a.jsonl", "--slots=0"], "slots"),
        (["--prompt= "], "--prompt is empty: give a question."),
        (["--prompt_ids="], "The prompt is empty: give a text, a list of messages"),
        (["--example=sums"], "should be one of <chain_sum|gsm_symbolic|"),
        ([PROMPT, "--mesh=1,2"], "--mesh takes data,fsdp,tensor, not 2 numbers."),
        ([PROMPT, "--mesh=1,x,1"], "--mesh must be whole numbers separated by commas, but it holds 'x'."),
        ([PROMPT, "--mesh=3,1,1"], "does not cover 8 devices"),
        ([PROMPT, "--dtype=float8"], "should be one of <float32|bfloat16|float16>"),
        ([PROMPT, "--method=specexti"], "unknown name 'specexti', choose among think, nothink"),
        (["--prompt_ids=1,x"], "--prompt_ids must be whole numbers separated by commas, but it holds 'x'."),
        (["--prompt_ids=1,-2"], "but it holds '-2'."),
        (["--prompt_ids=1,5000"], "holds token 5000, but the vocabulary has ids from 0 to"),
        (["--prompt_ids=" + ",".join(["1"] * 96)], "has 96 tokens, which leave no room in the target's context of 96"),
        ([PROMPT, "--max_new_tokens=0"], "max_new_tokens must be at least 1, but it is 0."),
        ([PROMPT, "--temperature=-1"], "temperature must be between 0 (greedy) and 1e+30"),
        ([PROMPT, "--min_p=2"], "min_p must be in [0, 1], but it is 2.0."),
        ([PROMPT, "--draft_tokens=-1"], "draft_tokens must be 0 or more, but it is -1."),
        ([PROMPT, "--target=nowhere"], "nowhere is not a folder"),
        ([PROMPT, "--draft=nowhere"], "nowhere is not a folder"),
        ([PROMPT, "--policy=nowhere.json"], "nowhere.json: no such policy"),
        ([PROMPT, "--smoother=median"], "median"),
        ([PROMPT, "--exit_rule=released", "--smoother=none"], "the released rule has no smoother 'none'"),
        ([PROMPT, "--exit_rule=never"], "exit_rule"),
        ([PROMPT, "--no_such_flag=1"], "Unknown command line flag 'no_such_flag'"),
        ([PROMPT, "--seed=-1"], "seed"),
        ([PROMPT, "stray"], "Unexpected argument 'stray'"),
    ],
)
def test_wrong_arguments_get_one_sentence(tiny, capsys, monkeypatch, arguments, sentence):
    code, out, err = call(capsys, monkeypatch, *folders(tiny), *arguments)
    assert code == 1
    assert not out
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]  # of the policy, once a process
    assert len(lines) == 1 and lines[0].startswith("error: ") and sentence in err, err


def _write(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def _remove(name: str):
    return lambda folder: (folder / name).unlink()


def _another_draft(folder: Path) -> None:
    write_policy(folder, "sha256:" + "0" * 64)


def _no_think(folder: Path) -> None:
    for path in (folder / "target").glob("*"):
        if path.suffix in (".json", ".jinja"):
            path.write_text(path.read_text().replace("think>", "muse>"))


def _cut(name: str):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_write("policy.json", "{"), "policy.json is not valid JSON"),
        (_write("policy.json", "{}"), "policy.json has unknown keys"),
        (_another_draft, "was calibrated for another draft"),
        (_write("target/config.json", "{"), "config.json is not valid JSON"),
        (_write("target/generation_config.json", "["), "generation_config.json is not valid JSON"),
        (_remove("target/tokenizer.json"), "the tokenizer in"),
        (_write("target/tokenizer.json", "{}"), "the tokenizer in"),
        (_no_think, "needs a model that thinks"),
        (_cut("target/model.safetensors"), "model.safetensors is not a readable safetensors file"),
        (_remove("draft/model.safetensors"), "model.safetensors is missing"),
    ],
)
def test_damaged_folders_get_one_sentence(broken, capsys, monkeypatch, damage, sentence):
    damage(broken)
    code, _, err = call(capsys, monkeypatch, *folders(broken), PROMPT)
    assert code == 1
    assert sentence in err
    assert len(err.splitlines()) == 1, err


def test_a_method_without_its_draft_is_refused(tiny, capsys, monkeypatch):
    code, _, err = call(capsys, monkeypatch, f"--target={tiny / 'target'}", PROMPT, "--method=eagle3")
    assert code == 1
    assert "needs a draft model" in err


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (lambda: {}["ids"], "KeyError: 'ids'"),
        (lambda: zipfile.ZipFile(io.BytesIO(b"no")), "A zip file cannot be read: File is not a zip file"),
        (lambda: safe_open(__file__, "np"), "A safetensors file cannot be read: "),
        (lambda: json.loads("{"), "Expecting property name"),
        (lambda: importlib.import_module("no_such_module"), "ModuleNotFoundError: No module named 'no_such_module'"),
        (lambda: numpy.linalg.inv(numpy.zeros((2, 2))), "Singular matrix"),
        (lambda: jax.numpy.zeros((2,)) + jax.numpy.zeros((3,)), "TypeError: add got incompatible shapes"),
    ],
)
def test_errors_of_others_get_one_sentence(raised, sentence):
    with pytest.raises(Exception) as error:
        raised()
    told = sentences.of_error(error.value)
    assert told.startswith(sentence) and "\n" not in told


def test_a_fault_of_our_own_keeps_its_call_stack(monkeypatch):
    monkeypatch.setattr(sentences, "_ROOT", Path(__file__).resolve().parent)
    monkeypatch.setattr(sentences, "_OWN", ("test_launch_mistakes.py",))
    with pytest.raises(AttributeError) as error:
        None.absent  # noqa: B018
    assert sentences.of_error(error.value) is None
    with pytest.raises(KeyError) as error:
        {}["ids"]
    assert re.search(
        r"KeyError: 'ids' \(.*test_launch_mistakes.py:\d+; --traceback shows more\)", sentences.of_error(error.value)
    )
