"""Stages that read annotated traces, on synthetic ones of full size; `full_size_case.py FOLDER` prints the peak memory in bytes.

Traces have 16,000 tokens, 200 boundaries and forced answers of up to 400 tokens; a few distinct ones, so that they are written
fast.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np
from annotated_case import END, SESSION, STOP

from specexit_jax.annotation.documents import Traces, frequent_tokens, packed
from specexit_jax.annotation.kinds import annotated_split
from specexit_jax.annotation.material import summary
from specexit_jax.annotation.replay import outcomes_by, replay_each
from specexit_jax.annotation.signal_file import load_signals, write_signals
from specexit_jax.annotation.unfinished import require_finished
from specexit_jax.evaluation.bounds import bound_records, gather_boundaries, oracle_exits
from specexit_jax.evaluation.records import record_of_replay
from specexit_jax.evaluation.report.shown import offsets_of
from specexit_jax.exits.calibration import exit_boundaries, threshold_grid
from specexit_jax.exits.policy import unreachable
from specexit_jax.exits.smoothers import smoother_named
from specexit_jax.storage.shards import ids_of

TOKENS, BOUNDARIES, ANSWER = 16_000, 200, 400
THINKING = TOKENS - 20


def write_full_size(folder: Path, count: int) -> Path:
    """An annotated split of `count` traces with their signals."""
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    forms = [_form(drawn) for _ in range(8)]
    with (folder / "traces.jsonl").open("w") as traces, (folder / "labels.jsonl").open("w") as labels:
        for number in range(count):
            name = f'{{"id": "a/draft/{number}", '
            for file, text in zip((traces, labels), forms[number % len(forms)], strict=True):
                file.write(f"{name}{text}\n")
    settings = {"kinds": ["paragraph"], "max_answer": ANSWER}
    (folder / "annotate.json").write_text(json.dumps({"settings": settings, "measured": {}}))
    block = drawn.random((TOKENS, 8), np.float32)
    rows = ((f"a/draft/{number}", np.roll(block, number, 0)) for number in range(count))
    write_signals(folder / "signals.npz", rows, count * TOKENS, "digest")
    return folder


def _form(drawn: np.random.Generator) -> tuple[str, str]:
    """A trace and its label as they are written, from the second key on."""
    ids, places = np.full(TOKENS, 1), np.sort(drawn.choice(THINKING - 1, BOUNDARIES, replace=False))
    ids[places], ids[THINKING], ids[-1] = 2, END, STOP
    answers = [[6] * int(length) + [STOP] for length in drawn.integers(ANSWER // 4, ANSWER - 1, BOUNDARIES)]
    agree = [bool(value) for value in np.arange(BOUNDARIES) >= drawn.integers(20, 120)]
    stable = agree.index(True)
    trace = {
        "task": "a",
        "split": "draft",
        "prompt": "?",
        "reference": "4",
        "prompt_ids": [1] * 40,
        "ids": ids.tolist(),
    }
    trace |= {"text": "word " * (TOKENS // 2), "think_end": THINKING, "answer": "4", "correct": True, "finish": "stop"}
    label = {"boundaries": places.tolist(), "forced_ids": answers, "forced": ["4" if one else "3" for one in agree]}
    label |= {"finished": [True] * BOUNDARIES, "agree": agree, "correct": agree, "logprob": [-0.5] * BOUNDARIES}
    label |= {"first": stable, "stable": stable, "exits_before": THINKING}
    return json.dumps(trace | {"seed": 0})[1:], json.dumps(label)[1:]


def read_all(folder: Path) -> None:
    """What training, calibration and evaluation read of a split."""
    assert ids_of(folder, "traces") == ids_of(folder, "labels")
    documents = Traces(folder, 16_384, boundaries=SESSION.boundaries())
    summary(documents)
    frequent_tokens(documents.traces, 8, 4)
    rows = packed(documents, 16_384)
    assert sum(rows[number]["boundary"].sum() for number in range(0, len(rows), 16)) > 0

    traces, labels = annotated_split(SESSION, folder, ("paragraph",))
    signals = load_signals(folder / "signals.npz", "digest")
    require_finished(folder, traces, labels)
    names = ("confidence", "progress", "remain")
    seen = outcomes_by(
        {name: smoother_named(name, names) for name in ("none", "ewma", "mean")}, traces, labels, signals
    )
    for each in seen.values():
        exit_boundaries(each, threshold_grid(each, (16, 4, 4)))
    found = replay_each(unreachable(), traces, labels, signals, SESSION.end_think_ids)
    records = [record_of_replay("specexit", trace, one) for _, trace, one in found]
    table = gather_boundaries(traces, labels)
    offsets_of([*records, *bound_records(table, oracle_exits(table), "oracle")], labels)


if __name__ == "__main__":
    read_all(Path(sys.argv[1]))
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
