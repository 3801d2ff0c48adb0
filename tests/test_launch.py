"""launch.generate and launch.chat on a tiny random model: what they write, and what they say of themselves."""

import io
import json
import re
import shutil
import sys

import pytest
from launch_case import PROMPT, call, folders

from launch import bundled, chat, generate, transcript
from specexit_jax import Answer, SpecExit, Usage, notes
from specexit_jax.data.known_prompts import EXAMPLES
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import bound
from specexit_jax.engine.session import load_session
from specexit_jax.exits.policy_file import load_policy, save_policy


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
    """One line says so; for a run under the policy's own conditions there is none."""
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
    assert "Without it (same program, same seed): " in out
    assert "\033" not in out  # not a terminal
    _, alone, _ = call(capsys, monkeypatch, *folders(tiny), PROMPT, "--compare=false")
    assert "Without it" not in alone


def test_the_method_and_why_it_was_chosen_are_said(tiny, tmp_path, capsys, monkeypatch):
    """A draft's own policy is found beside it. The line is on standard output, or on standard error with --json."""
    monkeypatch.setattr(SpecExit, "generate", lambda *_, **__: sys.exit(0))
    alone = shutil.copytree(tiny / "draft", tmp_path / "draft_model")
    for draft, line in [
        (tiny / "draft", f"method specexit: exits by {tiny / 'policy.json'}"),
        (alone, "method eagle3: no exit, since no policy.json lies with the draft"),
        (None, "method think: there is no draft model; --draft=FOLDER names a draft"),
    ]:
        arguments = (f"--target={tiny / 'target'}", *([f"--draft={draft}"] if draft else []), PROMPT)
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


def test_prompt_ids_are_the_whole_prompt(tiny, capsys, monkeypatch):
    session = load_session(tiny / "target")
    ids = ",".join(map(str, [*session.tokenizer.encode("<|user|>3<|assistant|>"), session.thinking.start[0]]))
    code, out, err = call(capsys, monkeypatch, *folders(tiny), f"--prompt_ids={ids}", "--json")
    assert code == 0, err
    assert json.loads(out)["ids"]


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


def test_the_comparison_never_claims_a_saving_that_was_not():
    short, long = _answer(10, 0.5), _answer(40, 1.0)
    assert "Without it (same program, same seed): 40 tokens" in transcript.saved(short, long)
    assert "saved 30 tokens (75%), 2.0× faster" in transcript.saved(short, long)
    assert "saved no token, 2.0× slower" in transcript.saved(long, short)


def _answer(tokens: int, seconds: float) -> Answer:
    usage = Usage(1, tokens - 3, 3, 1, 1.0, 3, seconds)
    more = {"policy": None, "written": "", "ids": (7,) * tokens, "prompt_ids": (1,)}
    return Answer("a", "", None, usage, "stop", "eagle3", id="a", seed=0, closed=True, **more)
