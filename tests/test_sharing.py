"""An evaluation that several processes decode is that of one: the same rows in files of their own, the same results."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_folders import write_tiny

from specexit_jax.annotation import annotate as annotate_module
from specexit_jax.annotation import rollout as rollout_module
from specexit_jax.annotation.forcing import Forcing
from specexit_jax.data.splits import Problem
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.evaluation.pipeline import harness, sharing
from specexit_jax.evaluation.pipeline.evaluate import evaluate
from specexit_jax.evaluation.pipeline.exit_records import CeilingSetting
from specexit_jax.evaluation.report.shown import signal_sections
from specexit_jax.exits.policy_file import load_policy
from specexit_jax.storage.shards import Shard, ids_of, read_shards

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("think", "nothink", "first_answer", "eagle3", "specexit", "probe", "oracle")
CEILING = CeilingSetting("development", 0.005, 1.0)


@pytest.fixture(scope="module")
def setting():
    forcing = Forcing(rows=2, branches=2, max_answer=12, max_new_tokens=48)
    names = {"draft_tokens": 2, "latency_per_task": 0, "latency_rounds": 1, "loop_parts": False}
    return harness.Setting("test", METHODS, 0, 2, forcing, **names, target="tiny", source="own", seeds=2)


@pytest.fixture(scope="module")
def session(session):
    """Closes its thinking and ends its answers now and then."""
    ends, head = [*session.end_think_ids, *session.stop_ids], session.params.target["lm_head"]
    params = session.params.replace(target=session.params.target | {"lm_head": head.at[0, np.array(ends)].set(2.3)})
    return dataclasses.replace(session, params=params, sampling=Sampling(temperature=1.2))


@pytest.fixture(scope="module")
def problems():
    entries = [{"question": f"{i}+{i}?", "answer": str(2 * i)} for i in range(5)]
    return [Problem(f"chain_sum/test/{i}", "chain_sum", "test", entry) for i, entry in enumerate(entries)]


@pytest.fixture(scope="module")
def file(session, tiny):
    return load_policy(tiny / "policy.json", session.draft_digest)


def results(session, problems, file, setting, workdir):
    """What does not depend on time and place."""
    evaluate(session, problems, file, setting, CEILING, workdir)
    found = json.loads((workdir / "results.json").read_text())
    return {name: value for name, value in found.items() if name not in ("date", "created", "revision")}


@pytest.fixture(scope="module")
def alone(session, problems, file, setting, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    return workdir, results(session, problems, file, setting, workdir)


def test_shares_give_the_results_of_one_process(session, problems, file, setting, alone, tmp_path, monkeypatch):
    shards = [dataclasses.replace(setting, shard=Shard(index, 3)) for index in range(3)]
    for number, own in enumerate(shards):
        sharing.decode_share(session, problems, file, own, tmp_path)
        left = sharing.missing(problems, file, setting, tmp_path)
        assert left == {} if number == 2 else set(left) == {"traces", "think", "nothink", "labels"}
    folder = tmp_path / "test"
    for name in ("traces.jsonl", "think.jsonl", "nothink.jsonl", "labels.jsonl", "signals.npz"):
        stem, _, suffix = name.partition(".")
        assert len(list(folder.glob(f"{stem}-0000?-of-00003.{suffix}"))) == 3 and not (folder / name).exists()
    for stem in ("traces", "think", "nothink", "labels"):
        shared, whole = ({row["id"]: row for row in read_shards(at / "test", stem)} for at in (tmp_path, alone[0]))
        for row in (*shared.values(), *whole.values()):
            row.pop("logprob", None)
        assert shared == whole and len(shared) == 10

    def again(*_, **__):
        raise AssertionError("what shares have done is done again")

    monkeypatch.setattr(harness, "signals_along", again)
    monkeypatch.setattr(annotate_module, "force_batch", again)
    monkeypatch.setattr(rollout_module, "trace_later", again)
    assert results(session, problems, file, setting, tmp_path) == alone[1]
    assert (folder / "signals.npz").is_file()  # for --from_records


def test_what_one_class_of_boundaries_does_not_tell_is_null(alone):
    """Not a NaN that refuses the results once hours were decoded."""
    found = alone[1]["signals"]
    assert found["agreeing"] in (0.0, 1.0) and found["auc"] is None and found["auc_smoothed"] is None
    assert signal_sections(None, [{"think_end": 3}], [{"boundaries": []}], {}) == {}


def test_a_killed_share_goes_on_and_the_number_of_processes_may_change(
    session, problems, file, setting, alone, tmp_path
):
    first = dataclasses.replace(setting, shard=Shard(0, 2))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "annotate", killed)
        with pytest.raises(KeyboardInterrupt):
            sharing.decode_share(session, problems, file, first, tmp_path)
    before = ids_of(tmp_path / "test", "traces")
    assert 0 < len(before) < 10
    for index in range(3):
        sharing.decode_share(session, problems, file, dataclasses.replace(setting, shard=Shard(index, 3)), tmp_path)
    assert len((tmp_path / "test" / "traces-00000-of-00002.jsonl").read_text().splitlines()) == len(before)
    assert sharing.missing(problems, file, setting, tmp_path) == {}
    assert results(session, problems, file, setting, tmp_path) == alone[1]


def test_without_exits_nothing_is_annotated(session, problems, setting, tmp_path):
    own = dataclasses.replace(setting, methods=("nothink",), seeds=1, shard=Shard(1, 2))
    sharing.decode_share(session, problems, None, own, tmp_path)
    assert sharing.missing(problems, None, own, tmp_path) == {"traces": 3, "nothink": 3}
    assert not list((tmp_path / "test").glob("labels*"))


@pytest.mark.slow
def test_joined_processes_evaluate_a_published_models_config(tmp_path):
    """The test split of configs/qwen3_8b.py on a tiny checkpoint of its architecture: shared by two processes, and by one."""
    tiny, rows = write_tiny(tmp_path / "tiny"), [{"question": f"{i}+{i}?", "answer": str(2 * i)} for i in range(40)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "target": tiny / "target", "draft": tiny / "draft", "policy": tiny / "policy.json", "source.name": tmp_path / "own.jsonl",
        "source.checker": "math", "rollout.max_new_tokens": 40, "annotate.max_answer": 12, "annotate.branches": 2,
        "evaluate.latency_per_task": 1, "evaluate.latency_rounds": 1, "evaluate.loop_parts": False, "evaluate.draft_tokens": 2,
        "dtype": "float32",  # so that batches of other rows round alike
    }  # fmt: skip
    options = [
        f"--config={ROOT / 'configs' / 'qwen3_8b.py'}",
        *(f"--config.{key}={value}" for key, value in values.items()),
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHON": sys.executable, "DEVICES": "1"}
    found = {}
    for count in ("1", "2"):
        command = [
            "bash",
            str(ROOT / "launch" / "local_cluster.sh"),
            count,
            "launch.evaluate",
            f"--workdir={tmp_path / count}",
        ]
        flags = ["--limit=4", "--seeds=0,1", f"--methods={','.join(METHODS)}"]
        done = subprocess.run(
            [*command, *options, *flags], env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
        found[count] = json.loads((tmp_path / count / "results.json").read_text())
    assert len(list((tmp_path / "2" / "test").glob("traces-0000?-of-00002.jsonl"))) == 2
    for name, method in found["1"]["methods"].items():
        for key in ("n", "accuracy", "tokens_mean", "thinking_tokens_mean", "tau_mean"):
            assert found["2"]["methods"][name]["overall"][key] == method["overall"][key]
