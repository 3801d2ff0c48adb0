"""Rollouts, annotation and features on a tiny random model: resumable files, forced answers, signals as the loop saw them."""

import dataclasses
import functools
import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs_case import unboxed
from signals_case import save_signals
from tiny_folders import write_tiny

from configs.embedded import get_config
from launch import loading
from specexit_jax.annotation import annotate as annotate_module
from specexit_jax.annotation import features
from specexit_jax.annotation import rollout as rollout_module
from specexit_jax.annotation.annotate import annotate, label_of
from specexit_jax.annotation.features import extract, signals_along
from specexit_jax.annotation.forcing import Forcing, force_batch, make_forcer
from specexit_jax.annotation.replay import replay
from specexit_jax.annotation.rollout import Rollout, request_of, roll_out
from specexit_jax.annotation.signal_file import load_signals
from specexit_jax.annotation.unfinished import count_unfinished
from specexit_jax.data.programs import CodeTests
from specexit_jax.data.splits import Problem
from specexit_jax.decoding.forced.one_at_a_time import Forced
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.placement import Placement
from specexit_jax.engine.requests import DecodeSettings
from specexit_jax.engine.session import load_session
from specexit_jax.evaluation.pipeline import harness
from specexit_jax.evaluation.pipeline.bounding import boundaries_of
from specexit_jax.exits.policy import NeverExit, unreachable
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.target import Target
from specexit_jax.storage.jsonl import append_jsonl, read_jsonl
from specexit_jax.storage.shards import Shard, read_shards

NEW = 24
ROLLOUT = Rollout(seed=0, batch_size=4, max_new_tokens=NEW)
FORCING = Forcing(rows=4, branches=2, max_answer=5, max_new_tokens=NEW)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = write_tiny(tmp_path_factory.mktemp("annotation"))
    return dataclasses.replace(
        load_session(folder / "target", folder / "draft"), sampling=Sampling(temperature=1.0, repetition_penalty=1.2)
    )


@pytest.fixture(scope="module")
def problems():
    """Questions short enough for the tiny model's context."""
    entries = [{"question": f"{i}+{i}?", "answer": str(2 * i)} for i in range(6)]
    return [Problem(f"chain_sum/test/{i}", "chain_sum", "test", entry) for i, entry in enumerate(entries)]


@pytest.fixture(scope="module")
def folder(session, problems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workdir")
    roll_out(session, problems, make_method(session, "think"), folder, ROLLOUT)
    annotate(session, folder, ("paragraph",), FORCING)
    return folder


def test_rollouts_resume_after_a_torn_line(session, problems, folder, tmp_path):
    whole = list(read_jsonl(folder / "traces.jsonl"))
    assert [trace["id"] for trace in sorted(whole, key=lambda t: t["id"])] == sorted(p.id for p in problems)
    path = tmp_path / "traces.jsonl"
    append_jsonl(path, whole[:2])
    with path.open("a") as file:
        file.write('{"id": "torn')
    roll_out(session, problems, make_method(session, "think"), tmp_path, ROLLOUT)
    again = {trace["id"]: trace for trace in read_jsonl(path)}
    assert again == {trace["id"]: trace for trace in whole}
    with pytest.raises(ValueError, match="was made with seed 0, this run has 1"):
        roll_out(session, problems, make_method(session, "think"), tmp_path, dataclasses.replace(ROLLOUT, seed=1))


def test_two_processes_then_three_write_the_traces_of_one(session, problems, folder, tmp_path):
    think, more = make_method(session, "think"), [dataclasses.replace(ROLLOUT, samples=2, shard=Shard(0, 2))]
    more += [dataclasses.replace(ROLLOUT, samples=2, shard=Shard(index, 3)) for index in range(3)]
    written = [roll_out(session, problems, think, tmp_path, rollout)["traces"] for rollout in more]
    assert written[0] == 6 and sum(written) == 12 and max(written[1:]) < 6
    found = read_shards(tmp_path, "traces")
    assert len(list(tmp_path.glob("traces-*.jsonl"))) == 4
    assert len({trace["id"] for trace in found}) == 12
    assert {(trace["problem"], trace["sample"]) for trace in found} == {(p.id, s) for p in problems for s in (0, 1)}
    assert {trace["seed"] - trace["sample"] for trace in found} == {0}
    first = {trace["id"]: trace for trace in found if trace["sample"] == 0}
    assert first == {trace["id"]: trace for trace in read_shards(folder, "traces")}
    second = {trace["problem"]: trace["ids"] for trace in found if trace["sample"] == 1}
    assert any(second[name] != trace["ids"] for name, trace in first.items())
    for rollout in more:  # nothing is left to do, and existing rows stay
        assert roll_out(session, problems, think, tmp_path, rollout)["traces"] == 0
    report = json.loads((tmp_path / "rollout-00000-of-00002.json").read_text())
    assert report["measured"]["traces"] == 6 and report["measured"]["tokens_per_second"] > 0

    for shard in (Shard(1, 2), Shard(0, 3), Shard(1, 3), Shard(2, 3)):
        annotate(session, tmp_path, ("paragraph",), FORCING, shard)
    labels = {label["id"]: label for label in read_shards(tmp_path, "labels")}
    assert labels.keys() == {trace["id"] for trace in found}
    assert [labels[label["id"]] for label in read_shards(folder, "labels")] == read_shards(folder, "labels")


def test_a_long_answer_holds_up_no_other(session, problems, tmp_path, monkeypatch):
    """With refilled slots, traces are written in the order in which they end."""
    monkeypatch.setattr(rollout_module, "_FLUSH", 0.0)
    appended = []
    monkeypatch.setattr(
        "specexit_jax.storage.shards.append_jsonl", lambda path, rows: appended.append([row["id"] for row in rows])
    )
    more = [dataclasses.replace(problem, id=f"{problem.id}/{i}") for i in range(4) for problem in problems]
    roll_out(session, more, make_method(session, "think"), tmp_path, dataclasses.replace(ROLLOUT, batch_size=4))
    order = [name for batch in appended for name in batch]
    assert sorted(order) == sorted(problem.id for problem in more)
    assert order != [problem.id for problem in more]
    assert len(appended) > len(more) // 2


def test_other_sampling_is_refused_by_name(session, problems, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    think = make_method(session, "think")
    colder = dataclasses.replace(session, sampling=Sampling(temperature=0.5))
    with pytest.raises(ValueError, match=r"was made with sampling \{'temperature': 1.0"):
        roll_out(colder, problems, think, tmp_path / "copy", ROLLOUT)
    with pytest.raises(ValueError, match="was made with max_answer 5, this run has 6"):
        annotate(session, tmp_path / "copy", ("paragraph",), dataclasses.replace(FORCING, max_answer=6))
    named = dataclasses.replace(ROLLOUT, target="one", source="world")
    roll_out(session, problems, think, tmp_path / "named", named)
    with pytest.raises(ValueError, match="was made with target 'one', this run has 'two'"):
        roll_out(session, problems, think, tmp_path / "named", dataclasses.replace(named, target="two"))
    with pytest.raises(ValueError, match=r"rollout.json was made with sampling \{'temperature': 1.0"):
        annotate(colder, tmp_path / "named", ("paragraph",), FORCING)
    with pytest.raises(
        ValueError, match=r"rollout.json was made with source 'world', this run has 'name=problems.jsonl'"
    ):
        annotate(session, tmp_path / "named", ("paragraph",), FORCING, source="name=problems.jsonl")
    assert not (tmp_path / "named" / "annotate.json").exists()
    longer = harness.Setting("copy", ("think",), 0, 4, dataclasses.replace(FORCING, max_answer=6), 3, 0, 1, False)
    with pytest.raises(ValueError, match="annotate.json was made with max_answer 5, this run has 6"):
        harness.require_alike(session, longer, tmp_path / "copy", ("paragraph",))
    harness.require_alike(session, longer, tmp_path / "copy", None)
    with pytest.raises(ValueError, match="rollout.json was made with seed 0, this run has 7"):
        harness.require_alike(session, dataclasses.replace(longer, seed=7), tmp_path / "copy", None)


def test_a_refused_stage_leaves_no_settings_behind(session, problems, tmp_path):
    think, lost = make_method(session, "think"), ValueError("the device is gone")
    with (
        pytest.raises(ValueError, match="gone"),
        mock.patch.object(rollout_module, "decode_prepared", side_effect=lost),
    ):
        roll_out(session, problems, think, tmp_path, ROLLOUT)
    assert [path.name for path in tmp_path.iterdir()] == [".traces.lock"]
    roll_out(session, problems[:1], think, tmp_path, dataclasses.replace(ROLLOUT, seed=5))
    with pytest.raises(ValueError, match="gone"), mock.patch.object(annotate_module, "force_batch", side_effect=lost):
        annotate(session, tmp_path, ("paragraph",), FORCING)
    assert not (tmp_path / "annotate.json").exists()


def test_the_configs_sampling_is_the_sessions(session):
    config = get_config()
    assert loading._sampled(session, config).sampling == session.sampling
    config.sampling.update({"temperature": 0.5, "top_k": 7})
    assert loading._sampled(session, config).sampling == dataclasses.replace(session.sampling, temperature=0.5, top_k=7)
    config.sampling.min_p = 2.0
    with pytest.raises(ValueError, match="min_p must be in"):
        loading._sampled(session, config)


def test_more_keys_change_no_label_of_the_first(session, folder, tmp_path):
    shutil.copy(folder / "traces.jsonl", tmp_path / "traces.jsonl")
    forcing = dataclasses.replace(FORCING, keys=3)
    annotate(session, tmp_path, ("paragraph",), forcing)
    found = {label["id"]: label for label in read_shards(tmp_path, "labels")}
    for label in read_shards(folder, "labels"):
        more = dict(found[label["id"]])
        assert len(more.pop("agree_share")) == len(label["boundaries"])
        # A program of another shape may round the last digit otherwise.
        assert more.pop("logprob") == pytest.approx(label["logprob"], abs=2e-6)
        assert more == {name: value for name, value in label.items() if name != "logprob"}
    measured = json.loads((tmp_path / "annotate.json").read_text())["measured"]
    assert measured["boundaries"] == sum(len(label["boundaries"]) for label in found.values())
    assert measured["computed"] == measured["reads"] * FORCING.branches
    assert sum(len(ids) for label in found.values() for ids in label["forced_ids"]) < measured["tokens"]
    assert measured["tokens"] <= measured["computed"]

    traces = [trace for trace in read_shards(folder, "traces") if found[trace["id"]]["boundaries"]][:1]
    places = [found[traces[0]["id"]]["boundaries"]]
    forced = force_batch(make_forcer(session, forcing), forcing, traces, places)
    assert (forced.ids[0, 0, 1:] != forced.ids[0, 0, :1]).any(axis=1).all(), "every key is another draw"


def test_answers_are_judged_by_the_traces_checker(session, folder):
    """An answer agrees with the model's own final one by the checker of its task, not by string equality."""
    trace, places = read_shards(folder, "traces")[0], [0, 1]
    ids = session.tokenizer.encode("1/2", add_special_tokens=False)
    forced = Forced(
        ids=np.tile(np.array(ids), (1, 2, 4, 1)),
        length=np.full((1, 2, 4), len(ids)),
        finished=np.array([[[True, True, False, True], [False, True, False, False]]]),
        log_probability=np.zeros((1, 2, 4)),
        features=None,
    )
    told = trace | {"answer": "It is \\boxed{0.5}.", "reference": "3", "checker": "math"}
    label = label_of(session, told, places, forced, 0)
    assert label["forced"] == ["1/2", None]
    assert label["agree"] == [True, False] and label["correct"] == [False, False]
    assert label["agree_share"] == [0.75, 0.25]
    assert label_of(session, told | {"checker": "text"}, places, forced, 0)["agree"] == [False, False]
    assert label_of(session, told | {"answer": None}, places, forced, 0)["agree_share"] == [0.0, 0.0]


def test_programs_are_judged_by_what_they_do(monkeypatch):
    """A forced program agrees with one that does the same, right or wrong."""
    unboxed(monkeypatch)
    monkeypatch.setattr(annotate_module, "text_of", lambda _, ids: "def half(n):\n    return n * 0.5")
    one = np.ones((1, 1, 1), int)
    forced = Forced(ids=one[..., None], length=one, finished=one == 1, log_probability=0.0 * one, features=None)
    tests = CodeTests("def half(n):\n", "def check(candidate):\n    assert candidate(3) == 1", "half").reference()
    told = {"id": "half", "task": "any", "checker": "code", "reference": tests}
    same, other = (f"```python\ndef half(n):\n    return {text}\n```" for text in ("n / 2", "n // 2"))
    label = label_of(None, told | {"answer": same}, [0], forced, 0)
    assert label["agree"] == [True] and label["correct"] == [False]
    label = label_of(None, told | {"answer": other}, [0], forced, 0)
    assert label["agree"] == [False] and label["correct"] == [False]


def test_corrupt_lines_are_named(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(ValueError, match="line 2"):
        list(read_jsonl(path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list(read_jsonl(tmp_path / "absent.jsonl"))


def test_labels_cover_every_boundary(session, folder):
    table = np.asarray(session.boundaries().always)
    labels = {label["id"]: label for label in read_jsonl(folder / "labels.jsonl")}
    for trace in read_jsonl(folder / "traces.jsonl"):
        thinking = len(trace["ids"]) if trace["think_end"] is None else trace["think_end"]
        expected = [i for i, token in enumerate(trace["ids"][:thinking]) if table[token]]
        label = labels[trace["id"]]
        assert label["boundaries"] == expected
        each = ("forced", "forced_ids", "finished", "agree", "correct", "logprob")
        assert {len(label[k]) for k in each} == {len(expected)}


def test_annotation_tells_which_answers_did_not_end(session, folder):
    """Unfinished answers are recognised by the last token. Some are cut by max_answer and others by the buffer's end."""
    traces, labels = read_shards(folder, "traces"), read_shards(folder, "labels")
    for label in labels:
        assert label["finished"] == [bool(ids) and ids[-1] in session.stop_ids for ids in label["forced_ids"]]
        assert not any(agree for agree, whole in zip(label["agree"], label["finished"], strict=True) if not whole)
    told = json.loads((folder / "annotate.json").read_text())["measured"]["unfinished"]
    cut = sum(not w and len(i) == 5 for x in labels for w, i in zip(x["finished"], x["forced_ids"], strict=True))
    assert told["cut"] == cut > 0 and told["answers"] >= cut and told["share"] == cut / told["answers"]
    assert told["cut"] + told["outside"] <= sum(not whole for label in labels for whole in label["finished"])
    # Nothing is left to do, and all of them are reported.
    again = annotate(session, folder, ("paragraph",), FORCING)["unfinished"]
    assert again.to_json() == told and f"{cut} of {told['answers']} answers" in again.summary()
    assert again == count_unfinished(traces, labels, 5)


def test_signals_are_those_that_the_loop_reads(session, problems, folder):
    full = list(read_jsonl(folder / "traces.jsonl"))
    bundle = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    found = extract(session.target, session.params.target, session.end_think_ids, full, bundle).signals
    requests = [request_of(session, problem, 0) for problem in problems]
    method = make_method(session, "think")
    settings = DecodeSettings(max_new_tokens=NEW, record_signals=True)
    for outcome in generate(session, requests, method, settings, Placement(4)):
        # the loop never runs the last token, which nothing follows
        np.testing.assert_allclose(found[outcome.id][:-1, :3], outcome.signals[:-1], rtol=2e-3, atol=1e-4)


def test_signals_file_knows_its_draft(tmp_path):
    signals = {"a": np.ones((3, 3), np.float32), "b": np.zeros((0, 3), np.float32), "c": np.full((1, 3), 2, np.float32)}
    save_signals(tmp_path / "signals.npz", signals, "one")
    read = load_signals(tmp_path / "signals.npz", "one")
    assert {k: v.tolist() for k, v in read.items()} == {k: v.tolist() for k, v in signals.items()}
    with pytest.raises(ValueError, match="another draft"):
        load_signals(tmp_path / "signals.npz", "two")
    with np.load(tmp_path / "signals.npz") as file:
        before = {name: file[name] for name in file if name != "readings"}
    np.savez(tmp_path / "signals.npz", **before)  # as of a version without readings
    with pytest.raises(ValueError, match="lacks the readings"):
        load_signals(tmp_path / "signals.npz", "one")


def test_signals_are_extracted_once_a_trace(session, folder, tmp_path, monkeypatch):
    """Signals of later traces are added to the cached ones."""
    traces = read_shards(folder, "traces")
    bundle = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    asked = []

    def counted(config, params, end, chosen, draft):
        asked.append([trace["id"] for trace in chosen])
        return signals_along(config, params, end, chosen, draft)

    monkeypatch.setattr(harness, "signals_along", counted)
    first = harness.extracted(session, traces[:2], bundle, tmp_path)
    whole = harness.extracted(session, traces, bundle, tmp_path)
    again = harness.extracted(session, traces[1:3], bundle, tmp_path)
    ids = [trace["id"] for trace in traces]
    assert asked == [ids[:2], ids[2:]]
    assert list(first.signals) == ids[:2] and whole.signals.keys() == again.signals.keys() == set(ids)
    for name, rows in extract(
        session.target, session.params.target, session.end_think_ids, traces, bundle
    ).signals.items():
        np.testing.assert_allclose(whole.signals[name], rows, rtol=1e-5, atol=1e-6)
    other = dataclasses.replace(session, draft_digest="another")
    harness.extracted(other, traces[:1], bundle, tmp_path)
    assert asked[-1] == ids[:1] and list(load_signals(tmp_path / "signals.npz", "another")) == ids[:1]


def test_acceptance_is_counted_for_the_draft_that_made_it(session, problems, folder, tmp_path):
    """Tokens are the same under any draft; traces without a draft, of another or of an unknown draft give no acceptance
    counts."""
    method = make_method(session, "eagle3", draft_tokens=3)
    setting = harness.Setting("test", (), 0, 4, FORCING, 3, 0, 1, False)
    kept = {trace["id"]: trace for trace in read_shards(folder, "traces")}
    rows = [kept[problem.id] | {"accepted": [1, 2, 0, 1]} for problem in problems[:4]]
    rows = [
        row | {"draft": name} for row, name in zip(rows, (session.draft_digest, None, "sha256:other", 0), strict=True)
    ]
    del rows[3]["draft"]
    append_jsonl(tmp_path / "traces.jsonl", rows)
    found = harness.decoded_by(session, problems[:4], method, setting, tmp_path, "traces")
    assert [trace["accepted"] for trace in found] == [[1, 2, 0, 1], [], [], []]
    assert [trace["ids"] for trace in found.whole()] == [row["ids"] for row in rows]


def test_boundary_features_have_a_row_a_boundary(session, folder, monkeypatch):
    traces, labels = list(read_jsonl(folder / "traces.jsonl")), list(read_jsonl(folder / "labels.jsonl"))
    asked = session.target, session.params.target, session.end_think_ids, traces
    found = extract(*asked, labels=labels)
    assert not found.signals
    for label in labels:
        assert found.features[label["id"]].shape == (len(label["boundaries"]), 3 * session.target.hidden_size)
    trace = next(trace for trace in traces if trace["id"] == labels[0]["id"])
    tokens = jnp.asarray([*trace["prompt_ids"], *trace["ids"]], jnp.int32)[None]
    run = functools.partial(Target(session.target).apply, {"params": session.params.target}, logits=False)
    whole = jax.jit(run)(tokens, jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]).features[0]
    own = len(trace["prompt_ids"]) + np.asarray(labels[0]["boundaries"])
    np.testing.assert_allclose(found.features[trace["id"]], whole[own], rtol=1e-4, atol=1e-5)
    with monkeypatch.context() as patch:  # batches of one row each
        patch.setattr(features, "TOKENS", 1)
        for name, rows in extract(*asked, labels=labels).features.items():
            np.testing.assert_allclose(rows, found.features[name], rtol=1e-4, atol=1e-5)


def test_labels_may_come_in_any_order(session, folder):
    traces, labels = list(read_jsonl(folder / "traces.jsonl")), list(read_jsonl(folder / "labels.jsonl"))
    bundle = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    along = extract(session.target, session.params.target, session.end_think_ids, traces, bundle, labels)
    policy = unreachable()
    there, back = (boundaries_of(session, policy, traces, order, along) for order in (labels, labels[::-1]))
    assert there.index.tolist() == back.index.tolist()
    np.testing.assert_array_equal(there.extra, back.extra)


def test_jsonl_rows_are_json(folder):
    for line in (folder / "labels.jsonl").read_text().splitlines():
        assert set(json.loads(line)) >= {"id", "boundaries", "forced", "agree", "first", "stable"}


def test_a_question_that_fills_the_context_is_a_trace_without_an_answer(session, problems, tmp_path, capsys):
    """It is recorded, labelled and counted as wrong; the other traces do not change."""
    entry = {"question": "Count the legs. " * 20, "answer": "2"}
    long = Problem("chain_sum/test/long", "chain_sum", "test", entry)
    roomy = dataclasses.replace(ROLLOUT, max_new_tokens=200)
    took = roll_out(session, [long, *problems[:2]], make_method(session, "think"), tmp_path, roomy)
    told = capsys.readouterr().err
    assert "1 of 3 prompts fill the target's context of 96 tokens (the first: 'chain_sum/test/long'" in told
    found = {trace["id"]: trace for trace in read_shards(tmp_path, "traces")}
    none = found.pop(long.id)
    assert (none["ids"], none["finish"], none["cut"], none["answer"], none["correct"]) == (
        [],
        "length",
        True,
        None,
        False,
    )
    cut = [trace for trace in found.values() if trace["cut"]]
    assert all(len(trace["prompt_ids"]) + len(trace["ids"]) == 96 and trace["finish"] == "length" for trace in cut)
    assert took["cut"] == 1 + len(cut) and f"{1 + len(cut)} of 3 traces ended at the target's context of 96" in told
    annotate(session, tmp_path, ("paragraph",), dataclasses.replace(FORCING, max_new_tokens=200))
    labels = {label["id"]: label for label in read_shards(tmp_path, "labels")}
    assert labels[long.id]["boundaries"] == []
    for trace in found.values():
        thinking = len(trace["ids"]) if trace["think_end"] is None else trace["think_end"]
        assert labels[trace["id"]]["exits_before"] == min(96 - len(trace["prompt_ids"]) - 1, thinking)
    bundle = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    extracted = extract(session.target, session.params.target, session.end_think_ids, [none], bundle, [labels[long.id]])
    assert extracted.signals[long.id].shape == (0, 8) and extracted.features[long.id].shape == (0, 48)
    (shown,) = replay(NeverExit(), [none], [labels[long.id]], None, session.end_think_ids)
    assert shown.ids == () and not shown.correct
    assert harness.decodable(session, [long, *problems[:2]], [none, *found.values()]) == problems[:2]
