"""launch.generate on a tiny random model, one sentence for every mistake, and the install scripts."""

import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy
import pytest
from absl import flags
from safetensors import safe_open
from tiny_folders import write_policy

from launch import bundled, chat, door, generate, sentences, transcript
from specexit_jax import Answer, SpecExit, Usage, notes
from specexit_jax.data.known_prompts import EXAMPLES
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import bound
from specexit_jax.engine.session import load_session
from specexit_jax.exits.policy_file import load_policy, save_policy

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "--prompt=Count the legs of 3 dogs."


@pytest.fixture
def broken(tiny, tmp_path) -> Path:
    """A copy of the tiny folder for a test to break."""
    return shutil.copytree(tiny, tmp_path / "broken")


def call(capsys, monkeypatch, *arguments: str, main=generate.main) -> tuple[int, str, str]:
    """Runs launch.generate (or another main) in this process: (exit code, standard output, standard error)."""
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    monkeypatch.setattr(sys, "argv", ["generate", *arguments])
    with pytest.raises(SystemExit) as stop:
        door.run(main)
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def folders(folder: Path) -> list[str]:
    names = ("target", "draft", "policy.json")
    return ["--draft_tokens=2", *(f"--{name.partition('.')[0]}={folder / name}" for name in names)]


def test_json_is_one_line_whose_exit_points_at_the_forced_end(tiny, capsys, monkeypatch):
    code, out, err = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--json")
    assert code == 0, err
    (line,) = out.splitlines()
    told = json.loads(line)
    assert list(told)[:6] == ["text", "ids", "thinking_tokens", "exit", "tau", "seconds"]
    session = load_session(tiny / "target")
    position = told["exit"]["position"]
    assert (told["ids"][position],) == session.end_think_ids
    assert told["thinking_tokens"] == position
    assert session.token_texts[told["ids"][position - 1]].endswith("\n\n")
    assert told["text"].count("</think>") == 1
    assert len(told["exit"]["signals"]) == 3
    assert 0 <= told["exit"]["signals"][0] <= 1
    assert [told["exit"][name] for name in ("confidence", "progress", "remain")] == told["exit"]["signals"]
    assert told["exit"]["boundary"] == 1  # of a policy that leaves at the first one
    assert told["tau"] >= 1
    assert told["seconds"] > 0
    assert told["text"].partition("</think>")[0].strip() == told["thinking"] and told["method"] == "specexit"
    assert told["text"].endswith(told["answer"]) and told["finish_reason"] in ("stop", "length")
    assert told["policy"]["path"] == str(tiny / "policy.json") and told["policy"]["certificate"] is None
    assert list(told["policy"]["thresholds"]) == ["confidence", "progress", "remain"]
    usage = told["usage"]
    assert usage["thinking_tokens"] == position and usage["answer_tokens"] == len(told["ids"]) - position
    assert usage["tokens_per_step"] == told["tau"] and usage["seconds"] == told["seconds"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_methods_agree_up_to_the_exit(tiny, capsys, monkeypatch, seed):
    told = {}
    for method in ("specexit", "probe", "eagle3", "think"):
        arguments = (*folders(tiny), PROMPT, "--json", f"--method={method}", f"--seed={seed}")
        code, out, err = call(capsys, monkeypatch, *arguments)
        assert code == 0, err
        told[method] = json.loads(out)
    left = told["specexit"]["exit"]
    kept = left["position"] if left else None
    assert told["probe"]["ids"] == told["specexit"]["ids"]
    assert told["think"]["ids"] == told["eagle3"]["ids"]
    assert told["think"]["ids"][:kept] == told["specexit"]["ids"][:kept]
    assert told["think"]["exit"] is None


def test_a_tree_writes_the_same_in_no_more_steps(tiny, capsys, monkeypatch):
    told = {}
    for tree in ("--draft_tokens=2", "--tree=2,24,90"):
        code, out, err = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--method=eagle3", "--json", tree)
        assert code == 0, err
        told[tree] = json.loads(out)
    chain, tree = told.values()
    assert tree["ids"] == chain["ids"]
    assert tree["tau"] > chain["tau"]
    code, _, err = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--tree=2,3")
    assert code == 1 and "--tree takes depth,top_k,total, not 2 numbers" in err


def test_a_stream_into_a_pipe_is_the_text_alone(tiny, capsys, monkeypatch):
    _, whole, _ = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--json")
    code, out, err = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--stream")
    assert code == 0, err
    text = json.loads(whole)["text"]
    assert out == text + "\n" * (not text.endswith("\n"))
    assert err.splitlines()[0].startswith("method specexit: ") and " of thinking) in " in err.splitlines()[-1]
    code, _, err = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--stream", "--json")
    assert code == 1 and "either --stream or --json" in err


def test_a_stream_on_a_terminal_shows_the_meters(tiny, capsys, monkeypatch):
    monkeypatch.setattr(generate, "on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    _, whole, _ = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--json")
    code, out, err = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--stream")
    assert code == 0, err
    assert "    confidence █" in out or "    confidence ░" in out
    shown = "".join(line for line in out.splitlines(keepends=True) if not line.startswith("    confidence"))
    assert shown.replace("\n", "").startswith(json.loads(whole)["text"].replace("\n", ""))
    assert " of thinking) in " in out.splitlines()[-1]


ROWS = (
    {"question": "Count the legs.", "answer": "12"},
    {"id": "b", "prompt": "3*4?"},
    {"messages": [{"role": "user", "content": "4+4?"}]},
)


def test_prompts_of_a_file_are_answered_in_its_order(tiny, tmp_path, capsys, monkeypatch):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    arguments = (*folders(tiny), f"--prompts={path}", "--slots=2", "--max_new_tokens=16")
    code, out, err = call(capsys, monkeypatch, *arguments, "--json")
    assert code == 0 and err.startswith("method specexit: ") and len(err.splitlines()) == 1, err
    told = [json.loads(line) for line in out.splitlines()]
    assert [answer["id"] for answer in told] == ["0", "b", "2"]
    model = SpecExit.load(tiny / "target", tiny / "draft", draft_tokens=2)
    prompts = [ROWS[0]["question"], ROWS[1]["prompt"], ROWS[2]["messages"]]
    found = model.generate_many(prompts, slots=2, ids=["0", "b", "2"], max_new_tokens=16)
    assert [tuple(answer["ids"]) for answer in told] == [answer.ids for answer in found]
    code, out, err = call(capsys, monkeypatch, *arguments)
    assert code == 0 and not err, err
    assert re.findall("═══ (.*) ═══", out) == ["0", "b", "2"] and out.startswith("method specexit: ")
    assert all(answer.text in out for answer in found)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ('{"question": "a"}\n{"answer": "b"}\n', 'row 2 has no prompt: give rows with a column "question", "prompt" or'),
        ('{"question": "a", "prompt": "b"}', "row 1 has question and prompt, of which it needs one alone."),
        ('{"messages": [{"role": "user"}]}', "row 1, column 'messages': A message holds the texts 'role' and 'content'"),
        ('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}', "the id '1' stands twice"),
        ("{", "prompts.jsonl cannot be read: it is not valid JSON"),
        ("", "holds no row: give rows with"),
        (None, "prompts.jsonl is not a file"),
    ],
)  # fmt: skip
def test_wrong_rows_get_one_sentence(tiny, tmp_path, capsys, monkeypatch, rows, sentence):
    path = tmp_path / "prompts.jsonl"
    if rows is not None:
        path.write_text(rows)
    code, out, err = call(capsys, monkeypatch, *folders(tiny), f"--prompts={path}")
    assert code == 1 and not out and sentence in err and len(err.splitlines()) == 1, err


def test_a_chat_keeps_what_it_has_read(tiny, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Count the legs.\n\n3*4?\n"))
    arguments = (*folders(tiny), "--method=eagle3", "--max_new_tokens=8", "--context=90")
    code, out, err = call(capsys, monkeypatch, *arguments, main=chat.main)
    assert code == 0, err
    told = re.findall(r"(\d+) of (\d+) prompt tokens were in the cache", out)
    assert len(told) == 2  # an empty line is no message
    assert told[0][0] == "0" and 0 < int(told[1][0]) < int(told[1][1])


def test_sampling_flags_change_what_the_target_asks_for(tiny, capsys, monkeypatch):
    asked, seen = [], []

    def generate(model, prompt, **settings):
        asked.append((model.session.sampling, model.plan(prompt, **settings).sampling))
        seen.append((model.session.target.dtype, model.session.mesh and dict(model.session.mesh.shape)))
        raise SystemExit(0)

    monkeypatch.setattr(SpecExit, "generate", generate)
    call(capsys, monkeypatch, *folders(tiny), PROMPT)
    call(capsys, monkeypatch, *folders(tiny), PROMPT, "--top_k=9", "--min_p=0.1")
    call(capsys, monkeypatch, *folders(tiny), PROMPT, "--temperature=2", "--top_p=0.5")
    call(capsys, monkeypatch, *folders(tiny), PROMPT, "--dtype=bfloat16", "--mesh=1,-1,1")
    assert seen[0] == ("float32", None) and seen[-1] == ("bfloat16", {"data": 1, "fsdp": 8, "tensor": 1})
    own = asked[0][0]
    assert own.temperature not in (0, 2)
    wanted = [own, Sampling(own.temperature, 9, own.top_p, 0.1), Sampling(2, own.top_k, 0.5, own.min_p)]
    assert [sampling for _, sampling in asked[:3]] == wanted


def test_a_run_that_the_policy_was_not_made_for_is_told_of_or_refused(broken, capsys, monkeypatch):
    """In one line; the very run that it was made for is not."""
    monkeypatch.setattr(notes, "_SAID", set())
    path, session = broken / "policy.json", load_session(broken / "target", broken / "draft")
    save_policy(path, bound(load_policy(path, session.draft_digest), session))
    arguments = [*folders(broken), PROMPT, "--strict_policy"]
    refusals = [
        ("--temperature=0.5", f"{path} was calibrated for another run than this: temperature 0.5 instead of 1.0."),
        ("--max_new_tokens=9", "max_new_tokens 9 instead of 48"),
        ("--smoother=mean", "smoothing mean instead of ewma"),
    ]
    for asked, sentence in refusals:
        code, out, err = call(capsys, monkeypatch, *arguments, asked)
        assert code == 1 and not out and sentence in err and len(err.splitlines()) == 1, err
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, _, err = call(capsys, monkeypatch, *folders(broken), "--temperature=0.5", main=chat.main)
    assert code == 0 and err.startswith(f"note: {path} was calibrated for another run") and len(err.splitlines()) == 1
    code, _, err = call(capsys, monkeypatch, *folders(broken), "--strict_policy", main=chat.main)
    assert (code, err) == (0, "")


def test_text_marks_the_exit_and_compares_with_a_real_run(tiny, capsys, monkeypatch):
    code, out, err = call(capsys, monkeypatch, *folders(tiny), PROMPT)
    assert code == 0, err
    assert "── exit after " in out
    assert "confidence 0." in out
    assert "Without it (eagle3, same seed): " in out
    assert "\033" not in out  # not a terminal
    _, alone, _ = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--compare=false")
    assert "Without it" not in alone


def test_the_method_and_why_it_was_chosen_are_said(tiny, tmp_path, capsys, monkeypatch):
    """A draft's own policy is found beside it; in the output, or beside it where that is for programs."""
    monkeypatch.setattr(SpecExit, "generate", lambda *_, **__: sys.exit(0))
    alone = shutil.copytree(tiny / "draft", tmp_path / "draft_model")
    for draft, line in [
        (tiny / "draft", f"method specexit: exits by {tiny / 'policy.json'}"),
        (alone, "method eagle3: no exit, since no policy.json lies with the draft"),
    ]:
        arguments = (f"--target={tiny / 'target'}", f"--draft={draft}", PROMPT)
        code, out, err = call(capsys, monkeypatch, *arguments)
        assert (code, err) == (0, "") and out.startswith(line) and len(out.splitlines()) == 1
        code, out, err = call(capsys, monkeypatch, *arguments, "--json")
        assert (code, out) == (0, "") and err.startswith(line)


def test_what_the_bundled_model_knows_is_said_of_other_prompts(capsys, monkeypatch):
    monkeypatch.setattr(SpecExit, "generate", lambda *_, **__: sys.exit(0))
    _, out, _ = call(capsys, monkeypatch, "--prompt=What is 12 + 30 - 4?", "--method=think")
    assert "note: the bundled model" in out and "this prompt is none of them, so its answer means nothing" in out
    _, out, _ = call(capsys, monkeypatch, "--example=gcd", "--method=think")
    assert out.splitlines()[1].startswith("prompt: Find the Greatest Common Divisor") and "note:" not in out
    assert bundled.warning(EXAMPLES["gcd"]) is None
    assert "never seen a second turn" in bundled.warning(EXAMPLES["gcd"], turn=1)


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


def test_prompt_ids_are_the_whole_prompt(tiny, capsys, monkeypatch):
    session = load_session(tiny / "target")
    ids = ",".join(map(str, [*session.tokenizer.encode("<|user|>3<|assistant|>"), session.thinking.start[0]]))
    code, out, err = call(capsys, monkeypatch, *folders(tiny), f"--prompt_ids={ids}", "--json")
    assert code == 0, err
    assert json.loads(out)["ids"]


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
    assert sentence in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1, err


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


def test_ids_in_ids_out_without_a_tokenizer(broken, capsys, monkeypatch):
    """A bare checkpoint, as save_pretrained leaves it: plain decoding of ids, its stop token from config.json."""
    for path in (broken / "target").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    arguments = (f"--target={broken / 'target'}", "--temperature=0", "--max_new_tokens=8", "--json")
    code, out, err = call(capsys, monkeypatch, *arguments, "--prompt_ids=1,2,3")
    assert code == 0, err
    told = json.loads(out)
    assert len(told["ids"]) == 8 and told["text"] == "" and told["thinking_tokens"] == 0
    code, _, err = call(capsys, monkeypatch, *arguments, "--prompt=Hi")
    assert code == 1 and "--prompt_ids" in err


def test_a_method_without_its_draft_is_refused(tiny, capsys, monkeypatch):
    code, _, err = call(capsys, monkeypatch, f"--target={tiny / 'target'}", PROMPT, "--method=eagle3")
    assert code == 1
    assert "needs a draft model" in err


def test_the_comparison_never_claims_a_saving_that_was_not():
    short, long = _answer(10, 0.5), _answer(40, 1.0)
    assert "Without it (eagle3, same seed): 40 tokens" in transcript.saved(short, long)
    assert "saved 30 tokens (75%), 2.0× faster" in transcript.saved(short, long)
    assert "saved no token, 2.0× slower" in transcript.saved(long, short)


def _answer(tokens: int, seconds: float) -> Answer:
    usage = Usage(1, tokens - 3, 3, 1, 1.0, 3, seconds)
    more = {"policy": None, "written": "", "ids": (7,) * tokens, "prompt_ids": (1,)}
    return Answer("a", "", None, usage, "stop", "eagle3", id="a", seed=0, closed=True, **more)


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
    told = sentences.told(error.value)
    assert told.startswith(sentence) and "\n" not in told


def test_a_fault_of_our_own_keeps_its_call_stack(monkeypatch):
    monkeypatch.setattr(sentences, "_ROOT", Path(__file__).resolve().parent)
    monkeypatch.setattr(sentences, "_OWN", ("test_launch.py",))
    with pytest.raises(AttributeError) as error:
        None.absent  # noqa: B018
    assert sentences.told(error.value) is None
    with pytest.raises(KeyError) as error:
        {}["ids"]
    assert re.search(r"KeyError: 'ids' \(.*test_launch.py:\d+; --traceback shows more\)", sentences.told(error.value))


FAKE_PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
  "-c "*) exec {python} "$@" ;;
  "-m venv") mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" ;;
  "-m pip") echo install >>{log}; exit "$(cat {code})" ;;
esac
"""


def test_the_environment_is_installed_once_and_again_when_its_list_changes(tmp_path):
    log, code, base = tmp_path / "log", tmp_path / "code", tmp_path / "python"
    base.write_text(FAKE_PYTHON.format(python=sys.executable, log=log, code=code))
    base.chmod(0o755)
    (tmp_path / "requirements.txt").write_text("a")
    script = f'root={tmp_path}; source {ROOT}/launch/environment.sh; prepare {tmp_path}/venv "$root/requirements.txt"'

    def prepare(exit_code: int) -> tuple[int, int]:
        code.write_text(str(exit_code))
        done = subprocess.run(["bash", "-euc", script], env={**os.environ, "PYTHON": str(base)}, capture_output=True)
        return done.returncode, len(log.read_text().splitlines())

    assert prepare(1) == (1, 1)  # a failed installation is not taken for a finished one
    assert prepare(0) == (0, 2)
    assert prepare(0) == (0, 2)
    (tmp_path / "requirements.txt").write_text("b")
    assert prepare(0) == (0, 3)


def test_a_missing_interpreter_is_named():
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / "demo.sh")],
        env={**os.environ, "PYTHON": "python9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no 'python9'")
