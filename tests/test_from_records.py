"""Results and reports made from the records of a workdir: the same as the run wrote, or as much of it as records exist
for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from evaluated_case import BOUNDARIES, POLICY, SPLIT, Words, write_evaluated

from specexit_jax.engine.session import EMBEDDED
from specexit_jax.evaluation.pipeline.from_records import recompute
from specexit_jax.evaluation.records import read_records, write_json, write_records
from specexit_jax.exits.boundaries import make_boundaries

ROOT = Path(__file__).resolve().parent.parent
FILES = ("results.json", "records.jsonl")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("evaluated")
    write_evaluated(workdir)
    return workdir


@pytest.fixture
def workdir(evaluated, tmp_path):
    return shutil.copytree(evaluated, tmp_path / "copy")


def test_the_files_are_those_of_the_run_byte_for_byte(evaluated, workdir):
    recompute(workdir, "test", POLICY, Words())
    for name in FILES:
        assert (workdir / name).read_bytes() == (evaluated / name).read_bytes(), name
    report = (workdir / "report.md").read_text()
    assert "Carried over from the results.json of the run: `signals`, `reliability`, `target`, `notes`, " in report
    assert "## Signals along traces" in report and "The 10 worst exits" in report


def test_what_records_give_is_computed_and_the_rest_is_carried_over(evaluated, workdir):
    path = workdir / "results.json"
    wanted, spoilt = json.loads(path.read_text()), json.loads(path.read_text())
    spoilt["methods"] = spoilt["comparisons"] = spoilt["shares"] = spoilt["acceptance"] = spoilt["offsets"] = None
    spoilt["latency_split"] = SPLIT | {"rounds": 99}
    spoilt["device"] = "cpu (of the run)"
    write_json(path, spoilt)
    found = recompute(workdir, "test", POLICY, Words())
    assert found == json.loads(path.read_text())
    assert found == wanted | {"latency_split": SPLIT | {"rounds": 99}, "device": "cpu (of the run)"}


def test_an_unfinished_evaluation_gives_what_there_is(workdir):
    records = [r for r in read_records(workdir / "records.jsonl") if r.method == "eagle3" and r.task == "world"]
    write_records(workdir / "records.jsonl", records)
    for name in ("results.json", "report.md", "report.html", "test/labels.jsonl", "test/signals.npz"):
        (workdir / name).unlink()
    found = recompute(workdir, "test", None)
    assert list(found["methods"]) == ["eagle3"] and list(found["methods"]["eagle3"]["tasks"]) == ["world"]
    assert found["comparisons"] == found["shares"] == []
    assert "offsets" not in found and "signals" not in found
    report = (workdir / "report.md").read_text()
    assert "Carried over" not in report and "worst" not in report
    assert (workdir / "report.html").is_file()


def test_labels_of_other_kinds_are_left_out(workdir):
    """Labels at an additional kind of boundary change nothing: only the policy's boundaries are used, also for T*."""
    path = workdir / "test" / "labels.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    (workdir / "test" / "annotate.json").write_text(json.dumps({"settings": {"kinds": ["paragraph", "marker"]}}))
    table = make_boundaries(["\n\n" if token - 3 in BOUNDARIES else "w" for token in range(64)])
    found = recompute(workdir, "test", POLICY, Words(), table)
    for row in rows:
        row |= {
            key: [row[key][0], *row[key]]
            for key in ("boundaries", "forced_ids", "forced", "agree", "correct", "logprob")
        }
        row["boundaries"][0], row["first"], row["stable"] = 2, None, None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert recompute(workdir, "test", POLICY, Words(), table) == found
    assert found["offsets"]["stable"] != recompute(workdir, "test", POLICY, Words())["offsets"]["stable"]


def test_without_tokenizer_and_signals_the_ids_are_shown(workdir):
    (workdir / "test" / "signals.npz").unlink()
    recompute(workdir, "test", POLICY)
    report = (workdir / "report.md").read_text()
    assert "3 4 5 6 7 8" in report and "## Signals along traces" not in report


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("records.jsonl", "", "is empty: evaluate first"),
    ("records.jsonl", '{"method": "think"}\n', "record 1 lacks or does not know accepted, answer"),
    ("records.jsonl", "{\n", "line 1 is not valid JSON"),
    ("results.json", "{", "results.json is not valid JSON"),
    ("results.json", "[]", "is not of an evaluation"),
])  # fmt: skip
def test_damaged_files_get_one_sentence_and_nothing_is_written(workdir, name, content, sentence):
    (workdir / name).write_text(content)
    before = {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=sentence) as error:
        recompute(workdir, "test", POLICY)
    assert "\n" not in str(error.value)
    assert before == {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}


def test_a_record_of_another_version_is_named(workdir):
    path = workdir / "records.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2]["mood"] = "good"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="record 3 lacks or does not know mood"):
        read_records(path)


def test_the_command_needs_no_weights(evaluated, workdir, tmp_path):
    bare = shutil.copytree(EMBEDDED / "target", tmp_path / "target", ignore=shutil.ignore_patterns("*.safetensors"))
    command = [
        sys.executable,
        "-m",
        "launch.evaluate",
        "--from_records",
        f"--config={ROOT / 'configs' / 'embedded.py'}",
    ]
    done = subprocess.run(
        [*command, f"--workdir={workdir}", f"--config.target={bare}"],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "specexit" in done.stdout and f"report: {workdir / 'report.html'}" in done.stdout
    for name in FILES:
        assert (workdir / name).read_bytes() == (evaluated / name).read_bytes(), name
