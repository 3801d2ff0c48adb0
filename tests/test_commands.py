"""Every command of the pages, the configs and the docstrings parses, loads its config and passes its up-front checks."""

import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands_case import ELSEWHERE, OTHERS, ROOT, STAGES, arguments_of, commands_of, shell_lines, texts

from specexit_jax.engine.session import EMBEDDED
from specexit_jax.evaluation.report.pages import pages_of

SPLITS = ("draft", "development", "calibration", "test")
# launch/demo.sh is the last one
COMMANDS = sorted({" ".join(command.split()) for text in texts() for command in commands_of(text)})
COMMANDS.append("launch.evaluate --config=configs/embedded.py:demo --workdir=runs/demo")


def run(commands: list[dict]) -> list[dict]:
    """The result of `entries_case` for each command."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "entries_case.py")], input=json.dumps(commands), capture_output=True, text=True,
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """FOLDER/work: a workdir in which every stage has run, with rows without content; FOLDER/fresh: an empty one."""
    folder = tmp_path_factory.mktemp("commands")
    for split in SPLITS:
        path = folder / "work" / split
        path.mkdir(parents=True)
        for stem in ("traces", "labels"):
            (path / f"{stem}.jsonl").write_text("".join(f'{{"id": "{number}"}}\n' for number in range(400)))
        (path / "rollout.json").write_text('{"settings": {}, "measured": {}}')
    (folder / "work" / "draft_model").mkdir()
    shutil.copy(EMBEDDED / "policy.json", folder / "work")
    (folder / "work" / "records.jsonl").write_text("{}\n")
    return folder


CONFIG = "--config=configs/embedded.py"
# (entry point, flags, workdir, what is said)
REFUSED = [
    ("calibrate", [], "fresh", "development/traces.jsonl does not exist, or holds no row: run the stage that"),
    ("calibrate", ["--delta=0.1"], "work", "--delta is of certified policies: give --epsilon too"),
    ("calibrate", ["--per_task"], "work", "--per_task is of certified policies: give --epsilon too"),
    ("calibrate", ["--epsilon=0.001"], "work", "400 problems of calibration can never certify"),
    ("calibrate", ["--epsilon=0.01", "--simultaneous"], "work", "give --per_task too"),
    ("calibrate", ["--config.calibrate.score.without=('tea_leaves',)"], "work", "score.without"),
    ("calibrate", ["--epsilon=2"], "work", "--epsilon lies between 0 and 1, but it is 2."),
    ("calibrate", ["--config.calibrate.signals=confidense,"], "work", "--config.calibrate.signals: unknown name 'confidense'"),
    ("calibrate", ["--config.calibrate.signals="], "work", "config.calibrate.signals is empty"),
    ("annotate", ["--splits=draft"], "fresh", "draft/traces.jsonl does not exist"),
    ("annotate", ["--config.annotate.kinds=a,b"], "work", "--config.annotate.kinds: unknown name 'a', choose among paragraph"),
    ("annotate", ["--splits=calibration"], "table", "made with source 'name=problems.jsonl', this run has 'world'"),
    ("annotate", ["--splits=test", "--config.source.name=problems.jsonl"], "world", "made with source 'world', this run has"),
    ("calibrate", ["--config.source.name=problems.jsonl"], "world", "made with source 'world', this run has"),
    ("train", [], "fresh", "draft/traces.jsonl does not exist"),
    ("train", [], "unlabelled", "1 of 2 traces have no label (b): annotate them first (launch.annotate --splits=draft)"),
    ("train", ["--config.train.signals=both"], "work", "--config.train.signals: unknown name 'both'"),
    ("learning_curve", [], "fresh", "development/traces.jsonl does not exist"),
    ("learning_curve", ["--epsilon=2"], "work", "--epsilon lies between 0 and 1"),
    ("drafts", [], "fresh", "Name the second draft's workdir: --other=FOLDER."),
    ("drafts", ["--other=runs/one", "--tree=5,x"], "work", "--tree must be whole numbers separated by commas, but it holds 'x'"),
    ("drafts", ["--other=runs/one"], "fresh", "development/traces.jsonl does not exist"),
    ("foresight", [], "fresh", "development/traces.jsonl does not exist"),
    ("ablate", [], "fresh", "development/traces.jsonl does not exist"),
    ("ablate", ["--config.ablate.draft=nowhere"], "work", "config.ablate.draft names nowhere, which is not a folder"),
    ("evaluate", ["--config.draft="], "fresh", "draft_model does not exist and config.draft is empty; run launch.train first"),
    ("evaluate", ["--config.policy="], "fresh", "config.policy is empty; run launch.calibrate first"),
    ("evaluate", ["--methods=ceiling"], "fresh", "draft/traces.jsonl does not exist"),
    ("evaluate", ["--methods=ceiling"], "few", "100 problems of calibration can never certify"),
    ("ablate", [], "few", "100 problems of calibration can never certify"),
    ("evaluate", ["--methods=specexti"], "work", "unknown method 'specexti'"),
    ("evaluate", ["--seeds=0,2"], "work", "--seeds goes on from the config's seed"),
    ("evaluate", ["--seeds=0,x"], "work", "--seeds must be whole numbers separated by commas, but it holds 'x'"),
    ("evaluate", ["--batch_size=0"], "work", "batch_size is a number of rows from 1 on, auto, or auto:N"),
    ("rollout", ["--config.rollout.batch_size=some"], "work", "batch_size is a number of rows from 1 on, auto, or auto:N"),
    ("rollout", ["--config.rollout.batch_size=auto", "--config.cache_bytes=0"], "work", "cache_bytes must be at least 1"),
    ("evaluate", ["--tasks=gcd", "--config.source.name=gsm8k"], "work", "--tasks chooses among the reasoning world's tasks"),
    ("evaluate", ["--config.tasks=gcd,", "--config.source.name=gsm8k"], "work", "config.tasks chooses among the reasoning world's"),
    ("evaluate", ["--from_records", "--limit=5"], "work", "--limit says what to decode, and --from_records decodes nothing"),
    ("evaluate", ["--from_records"], "fresh", "records.jsonl does not exist: evaluate first"),
    ("rollout", ["--splits=target"], "fresh", "config.rollout.per_task says nothing of the split 'target': give --limit=N"),
    ("rollout", ["--limit=0"], "fresh", "needs at least one problem, not 0"),
    ("lm_eval", ["--tasks=gsm8k", "--config.policy="], "fresh", "run launch.calibrate first"),
    ("benchmark", ["--config.draft="], "fresh", "run launch.train first"),
    ("train", ["--config.temperature=1"], "work", "The config has no key 'temperature'"),
    ("train", ["--config.train.optimizer.momentun=1"], "work", "The config has no key 'momentun'"),
    ("train", ["--config.train.stps=7"], "work", "The config has no key 'stps': did you mean 'steps'?"),
    ("train", ["--config.train.steps=many"], "work", "flag --config.train.steps=many: invalid literal"),
    ("train", ["--config=configs/embedded.py:fast"], "work", "configs/embedded.py has no variant 'fast'"),
    ("train", ["--config=absent.py"], "work", "There is no config file absent.py."),
    ("train", ["--config=EMPTY"], "work", "The file that --config names has no get_config()"),
    ("train", ["--config"], "work", "--config is missing: give --config=configs/embedded.py."),
    ("train", ["--config", "--config.seed=1"], "work", "--config.seed changes a value of a config: give --config=configs/NAME.py"),
    ("train", ["--config", "--config.seed=1", CONFIG], "work", "--config.seed changes a value of a config: give"),
    ("train", [""], "work", "--workdir is missing: give --workdir=FOLDER."),
    ("train", ["--no_such_flag=1"], "work", "Unknown command line flag 'no_such_flag'"),
    ("train", ["stray"], "work", "Unexpected argument 'stray': every option is written --name=value."),
    ("train", ["--config.evaluate.loop_parts=maybe"], "work", "Non-boolean argument to boolean flag: maybe"),
]  # fmt: skip
# (entry point, flags, workdir, where in the config, its value)
READ = [
    ("train", ["--config.train.steps=7"], "work", "train.steps", 7),
    ("calibrate", ["--config.calibrate.signals=confidence,"], "work", "calibrate.signals", ["confidence"]),
    ("calibrate", ["--config.calibrate.signals=confidence"], "work", "calibrate.signals", ["confidence"]),
    ("calibrate", ["--config.calibrate.signals=('progress', 'remain')"], "work", "calibrate.signals", ["progress", "remain"]),
    ("annotate", ["--config.annotate.kinds=marker,paragraph"], "work", "annotate.kinds", ["marker", "paragraph"]),
    ("train", ["--config.train.signal_weights=1,0.5,0.25"], "work", "train.signal_weights", [1, 0.5, 0.25]),
    ("rollout", ["--config.sampling.temperature=0.6", "--config.sampling.top_k=20"], "work", "sampling.temperature", 0.6),
    ("rollout", ["--config=configs/qwen3_8b.py", "--splits=test"], "work", "evaluate.split", "test"),
    ("rollout", ["--splits=target", "--limit=5"], "work", "evaluate.split", "test"),
    ("evaluate", ["--batch_size=2"], "work", "evaluate.batch_size", 1),
    ("evaluate", ["--batch_size=auto"], "work", "evaluate.batch_size", 1),
    ("rollout", ["--config.rollout.batch_size=4"], "work", "rollout.batch_size", 4),
    ("rollout", ["--config.rollout.batch_size=auto:128"], "work", "rollout.batch_size", "auto:128"),
    ("evaluate", [], "fresh", "evaluate.split", "test"),
]  # fmt: skip


def _flags(words: list[str], workdir: Path) -> list[str]:
    """With the default config, unless they begin with one; a bare "" at their end takes --workdir away."""
    named = [] if words and words[0].startswith("--config") and "." not in words[0].partition("=")[0] else [CONFIG]
    given = [*named, *words, f"--workdir={workdir}"] if words[-1:] != [""] else [*named, *words[:-1]]
    return [word.replace("EMPTY", str(workdir.parent / "empty.py")) for word in given if word != "--config"]


@pytest.fixture(scope="module")
def seen(folder) -> dict:
    """The result of every command, by its index in the lists; one process starts all of them."""
    write = lambda place, text: (place.parent.mkdir(parents=True, exist_ok=True), place.write_text(text))  # noqa: E731
    for name, label in (("table", "name=problems.jsonl"), ("world", "world")):
        shutil.copytree(folder / "work", folder / name)
        for split in SPLITS:
            write(folder / name / split / "rollout.json", json.dumps({"settings": {"source": label}, "measured": {}}))
    shutil.copytree(folder / "work", folder / "few")
    for stem in ("traces", "labels"):
        write(folder / "few" / "calibration" / f"{stem}.jsonl", "".join(f'{{"id": "{n}"}}\n' for n in range(100)))
    write(folder / "unlabelled" / "draft" / "traces.jsonl", '{"id": "a"}\n{"id": "b"}\n')
    write(folder / "unlabelled" / "draft" / "labels.jsonl", '{"id": "a"}\n')
    asked = [
        {"name": name, "arguments": words} for name, words in (arguments_of(command, folder) for command in COMMANDS)
    ]
    (folder / "empty.py").write_text("")
    for name, words, workdir, _ in REFUSED:
        asked.append({"name": name, "arguments": _flags(words, folder / workdir)})
    for name, words, workdir, show, _ in READ:
        asked.append({"name": name, "arguments": _flags(words, folder / workdir), "show": show})
    asked += [{"name": name, "arguments": ["--help"]} for name in (*STAGES, *OTHERS)]
    found = run(asked)
    ends = [len(COMMANDS), len(COMMANDS) + len(REFUSED), len(COMMANDS) + len(REFUSED) + len(READ)]
    return {"commands": found[: ends[0]], "refused": found[ends[0] : ends[1]], "read": found[ends[1] : ends[2]],
            "help": dict(zip((*STAGES, *OTHERS), found[ends[2] :], strict=True))}  # fmt: skip


def test_all_entry_points_are_documented():
    assert {command.split()[0].removeprefix("launch.") for command in COMMANDS} == {*STAGES, *OTHERS}
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=[command.replace("/", "|") for command in COMMANDS])
def test_a_documented_command_starts(seen, number):
    found = seen["commands"][number]
    lacking = COMMANDS[number].startswith("launch.smollm2") and "This script needs" in found["err"]
    assert found["code"] == 0 or lacking, found["err"]


@pytest.mark.parametrize("path", pages_of(ROOT), ids=lambda path: path.name)
def test_every_line_of_shell_on_a_page_is_started(path):
    variables = "".join(f"{name}=x\n" for name in "CSW")
    lines = [line for line in shell_lines(path.read_text()) if not line.startswith(ELSEWHERE)]
    assert not [line for line in lines if not commands_of(variables + line)]
    named = [
        word
        for line in shell_lines(path.read_text())
        for word in line.split()
        if re.match(r"(tests|launch)/.*\.|.*\.txt$", word)
    ]
    assert not [word for word in named if not (ROOT / word).is_file()]


def test_the_harness_reads_its_own_command_line(monkeypatch):
    harness = pytest.importorskip("lm_eval._cli")
    opened = importlib.import_module("specexit_jax.evaluation.lm_eval.open").opened
    lines = [line for path in pages_of(ROOT) for line in shell_lines(path.read_text()) if line.startswith("python -c")]
    assert lines
    for line in lines:
        program, *words = shlex.split(line)[2:]
        compile(program, "page", "exec")
        monkeypatch.setattr(sys, "argv", ["lm-eval", *words])
        given = harness.HarnessCLI().parse_args()
        assert (given.model, given.tasks) == ("specexit", ["gsm8k"])
        assert set(given.model_args) <= {*inspect.signature(opened).parameters, "max_gen_toks"}


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_cannot_work_is_refused_before_it_does(seen, folder, number):
    found, (_, _, _, sentence) = seen["refused"][number], REFUSED[number]
    assert found["code"] == 1 and found["err"].startswith("error: ") and sentence in found["err"], found
    assert len(found["err"].splitlines()) == 1
    assert not (folder / "fresh").exists()


@pytest.mark.parametrize("number", range(len(READ)))
def test_what_is_given_is_read(seen, number):
    found, (_, _, _, _, value) = seen["read"][number], READ[number]
    assert found["code"] == 0, found["err"]
    assert found["value"] == value


def test_a_fresh_evaluation_leaves_the_ceiling_out_and_says_so(seen):
    assert seen["read"][-1]["out"].startswith("The method ceiling is left out: ")
    assert "draft/traces.jsonl does not exist" in seen["read"][-1]["out"]
    assert "ceiling" not in seen["read"][-2]["out"]


@pytest.mark.parametrize("name", [*STAGES, *OTHERS])
def test_help_shows_every_flag(seen, name):
    found = seen["help"][name]
    assert found["code"] == 0 and not found["err"]
    flags = ["--config", "--workdir"] if name in STAGES else []
    if name in ("chat", "generate"):
        flags = ["--target", "--draft", "--policy", "--method", "--temperature", "--top_k", "--top_p", "--min_p",
                 "--max_new_tokens", "--dtype", "--mesh"]  # fmt: skip
    if name == "benchmark":
        flags += ["--preset", "--throughput", "--compile_only", "--topology", "--branches", "--rounds", "--peers"]
    for flag in (*flags, "--traceback"):
        assert f"  {flag}=" in found["out"] or f"  --[no]{flag[2:]}\n" in found["out"], flag
