"""Rows on disk give what the same rows in memory give, in memory that does not grow with their number."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from annotated_case import END, KINDS, SESSION, STOP, write_split
from full_size_case import write_full_size
from signals_case import save_signals

from specexit_jax.annotation.documents import document
from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.kinds import annotated_split, labels_at
from specexit_jax.annotation.replay import outcomes_by, replay, smoothed_at_boundaries, statistics_at_boundaries
from specexit_jax.annotation.signal_file import load_signals
from specexit_jax.annotation.unfinished import count_unfinished
from specexit_jax.evaluation.bounds import gather_boundaries
from specexit_jax.evaluation.foresight import chosen_places
from specexit_jax.evaluation.report.shown import signal_sections
from specexit_jax.exits.policy import Deer, FirstAnswer, NeverExit, Threshold
from specexit_jax.exits.smoothers import Ewma, smoother_named
from specexit_jax.storage.jsonl import read_jsonl

TESTS = Path(__file__).resolve().parent
NAMES = ("confidence", "progress", "remain")


def some_rows(old: bool) -> tuple[list[dict], list[dict]]:
    """Traces of many lengths, one without tokens and one that never closes; old: labels do not say which answers are finished."""
    drawn, traces, labels = np.random.default_rng(3), [], []
    for number in range(90):
        length = int(drawn.integers(0, 150)) if number else 0
        ids = drawn.choice([1, 2, 3, 4], length).tolist()
        closed = number % 7 != 0
        thinking, name = length, {"id": f"a/test/{number}", "task": "ab"[number % 2], "split": "test"}
        traces.append(
            name
            | {
                "problem": f"a/test/{number // 2}",
                "prompt": "?",
                "reference": "4",
                "prompt_ids": [1] * 5,
                "text": "x\n" * length,
            }
            | {
                "ids": ids + [END, 6, STOP] * closed,
                "think_end": thinking if closed else None,
                "answer": "4" if closed else None,
            }
            | {
                "correct": number % 3 > 0,
                "finish": "stop" if closed else "length",
                "seed": number % 2,
                "sample": number % 2,
            }
        )
        places = [
            place for place in range(thinking) if ids[place] == 2 or (place + 1 < thinking and ids[place + 1] == 4)
        ]
        agree = [bool(value) for value in drawn.random(len(places)) < 0.6]
        label = {
            "id": name["id"],
            "boundaries": places,
            "forced_ids": [[6] * int(n) + [STOP] for n in drawn.integers(0, 9, len(places))],
        }
        label |= {"forced": ["4" if one else None for one in agree], "finished": [True] * len(places), "agree": agree}
        label |= {"correct": agree, "logprob": (-drawn.random(len(places))).round(6).tolist(), "exits_before": thinking}
        stable = next((n for n in range(len(agree)) if all(agree[n:])), None)
        label |= {"first": agree.index(True) if any(agree) else None, "stable": stable}
        labels.append({key: value for key, value in label.items() if not (old and key == "finished")})
    return traces, labels


@pytest.fixture(params=[False, True], ids=["new", "old"])
def split(request, tmp_path) -> Path:
    traces, labels = some_rows(request.param)
    folder = write_split(tmp_path / "test", traces, labels[::-1], KINDS)
    drawn = np.random.default_rng(4)
    save_signals(
        folder / "signals.npz", {t["id"]: drawn.random((len(t["ids"]), 8), np.float32) for t in traces}, "digest"
    )
    return folder


def alike(one, two) -> None:
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        alike(a, b) if dataclasses.is_dataclass(a) else np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("kinds", [KINDS, ("paragraph",)])
def test_rows_on_disk_give_what_rows_in_memory_give(split, kinds):
    traces, rows = list(read_jsonl(split / "traces.jsonl")), list(read_jsonl(split / "labels.jsonl"))
    labels = labels_at(traces, join_labels(traces, rows), SESSION.boundaries(kinds))
    stored = annotated_split(SESSION, split, kinds)
    known, along = load_signals(split / "signals.npz", "digest"), {}
    along |= known
    assert (
        stored[1].whole() == labels
        and stored[0].whole() == traces
        and sum(len(label["boundaries"]) for label in labels) > 900
    )
    assert count_unfinished(*stored, 8) == count_unfinished(traces, labels, 8)

    smoothers = {name: smoother_named(name, NAMES) for name in ("none", "ewma", "paragraph_mean")}
    for name, found in outcomes_by(smoothers, *stored, known, 2).items():
        alike(found, outcomes_by({name: smoothers[name]}, traces, labels, along, 2)[name])
    for call, first in ((smoothed_at_boundaries, Ewma()), (statistics_at_boundaries, NAMES)):
        for one, two in zip(call(first, *stored, known), call(first, traces, labels, along), strict=True):
            np.testing.assert_array_equal(one, two)
    alike(gather_boundaries(*stored, None, None, 2), gather_boundaries(traces, labels, None, None, 2))
    policy = Threshold(jnp.asarray([0.6, 0.0, 9.0], jnp.float32), smoother_named("none", NAMES))
    assert signal_sections(policy, *stored, known) == signal_sections(policy, traces, labels, along)
    places = [[(one.trace, one.number) for one in chosen_places(*each, 40, 1)] for each in (stored, (traces, labels))]
    assert places[0] == places[1] and len(places[0]) == 40

    stated = FirstAnswer(jnp.asarray([False, False, False, True, False, False, False, False]))
    for rule in (policy, stated, Deer(jnp.float32(0.6), 16), NeverExit()):
        shown = replay(rule, traces, labels, along, (END, END))
        brief = replay(rule, *stored, known, (END, END))
        assert [one.tokens for one in brief] == [one.tokens for one in shown]
        assert [dataclasses.replace(one, ids=()) for one in brief] == [
            dataclasses.replace(one, ids=()) for one in shown
        ]
        assert replay(rule, stored[0].whole(), stored[1].whole(), known, (END, END)) == shown
        assert rule == NeverExit() or 0 < sum(one.exit_index is not None for one in shown) < 90
    for number in (3, 8):
        for name, values in document(stored[0].whole()[number], stored[1][number]).items():
            np.testing.assert_array_equal(values, document(traces[number], labels[number])[name])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_traces(tmp_path):
    """Four times as many traces of full size: in memory each took four megabytes."""
    peaks = []
    for count in (64, 256):
        folder = write_full_size(tmp_path / str(count), count)
        environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, str(TESTS / "full_size_case.py"), str(folder)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        peaks.append(int(ran.stdout.split()[-1]))
    print(*(f"{peak / 2**20:.0f} MiB" for peak in peaks))
    assert peaks[1] - peaks[0] < 192 * 2**18, peaks  # a quarter of a megabyte a trace, and no more
