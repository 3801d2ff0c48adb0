"""A workdir as an evaluation leaves it, of twelve made-up problems: traces, labels, signals, records, results."""

from pathlib import Path

import numpy as np
from signals_case import save_signals

from specexit_jax.evaluation.records import Record, record_of_trace
from specexit_jax.evaluation.report.publish import publish
from specexit_jax.evaluation.report.shown import Shown, offsets_of, signal_sections
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.storage.jsonl import append_jsonl

POLICY = PolicyFile("default", "none", ("paragraph",), (0.5, 0.0, 1e4), None, 0.005, None, "development", 10, "digest")
BOUNDARIES, END = [4, 9, 14], 2
HARMED = {"gsm8k/test/3": 1, "world/test/4": 0}  # id -> the boundary of the exit; all others exit at the second
SPLIT = {
    "problems": 2, "rounds": 3, "step_ms": {"256": {"verify": 1.0, "draft": 0.5, "whole": 1.6}},
    "exit_share": {"value": 0.01, "ci95": [-0.02, 0.04], "rounds": 50},
    "methods": {
        "eagle3": {"prefill": 0.01, "verify": 0.1, "draft": 0.05, "exit": 0.0, "host": 0.02, "whole": 0.18, "steps": 100.0},
        "specexit": {"prefill": 0.01, "verify": 0.05, "draft": 0.02, "exit": 0.001, "host": 0.009, "whole": 0.09,
                     "steps": 50.0},
    },
}  # fmt: skip
POSITIONS = [{"from": 0, "to": 16, "steps": 30, "problems": 6, "tokens_per_step": 3.25, "ci95": [3.0, 3.5]}]
FRONTIER = [
    {"epsilon": 0.005, "tokens": None, "tokens_ratio": None, "risk_bound": None, "accuracy": None},
    {"epsilon": 0.01, "tokens": 15.0, "tokens_ratio": 0.75, "risk_bound": 0.0098, "accuracy": 0.9},
    {"epsilon": 0.05, "tokens": 12.0, "tokens_ratio": 0.6, "risk_bound": 0.049, "accuracy": 0.85},
]


class Words:
    """A tokenizer whose token 7 is markup that a report must escape."""

    def decode(self, ids) -> str:
        return " ".join("<script>alert('x')</script> ```\n![](http://x.y/z.png)" if i == 7 else f"w{i}" for i in ids)


def traces_and_labels() -> tuple[list[dict], list[dict]]:
    traces, labels = [], []
    for task in ("gsm8k", "world"):
        for number in range(6):
            name, wrong = f"{task}/test/{number}", HARMED.get(f"{task}/test/{number}")
            ids = [*range(3, 18), END, 30, 31 + number, 1]
            traces.append({
                "id": name, "task": task, "split": "test", "prompt": f"<b>How many</b> | {number}?", "reference": "9",
                "prompt_ids": [5, 6], "ids": ids, "text": "", "think_end": 15, "answer": "9", "correct": True,
                "finish": "stop", "seed": 0, "steps": 7, "accepted": [1, 2, 3, 1], "exit": None,
            })  # fmt: skip
            right = [place != wrong and place > 0 for place in range(3)]
            labels.append({
                "id": name, "boundaries": BOUNDARIES, "forced_ids": [[40 + place, 1] for place in range(3)],
                "forced": ["9" if one else f"no <{place}>" for place, one in enumerate(right)],
                "agree": right, "correct": right, "logprob": [-0.1] * 3, "first": right.index(True), "stable": 2,
            })  # fmt: skip
    return traces, labels


def records_of(traces: list[dict], labels: list[dict]) -> list[Record]:
    """`eagle3` decoded, `specexit` replayed, and timed on the first problem of a task."""
    records = [record_of_trace("eagle3", trace) for trace in traces]
    for trace, label in zip(traces, labels, strict=True):
        place = HARMED.get(trace["id"], 1)
        records.append(Record(
            "specexit", trace["task"], trace["id"], "test", label["correct"][place], BOUNDARIES[place] + 4,
            BOUNDARIES[place] + 1, BOUNDARIES[place] + 1, True, 0, (), label["forced"][place], "stop", "replay",
        ))  # fmt: skip
    for method, seconds in (("eagle3", 0.1 + 0.2), ("specexit", 0.1)):
        own = {record.id: record for record in records if record.method == method}
        timed = [own[f"{task}/test/0"] for task in ("gsm8k", "world")]
        records += [Record(**{**one.to_json(), "accepted": (0, 1, 2), "source": "decode", "latency_s": seconds})
                    for one in timed]  # fmt: skip
    return records


def signals_of(traces: list[dict]) -> dict[str, np.ndarray]:
    """Confidence grows with the problem's number, also for harmed problems."""
    rows = {}
    for trace in traces:
        values = np.random.default_rng(len(trace["id"])).random((len(trace["ids"]), 3)).astype(np.float32)
        values[:, 0] = 0.6 + 0.05 * int(trace["id"][-1])
        rows[trace["id"]] = values
    return rows


def write_evaluated(workdir: Path) -> dict:
    """The workdir; its results."""
    traces, labels = traces_and_labels()
    records, signals = records_of(traces, labels), signals_of(traces)
    append_jsonl(workdir / "test" / "traces.jsonl", traces)
    append_jsonl(workdir / "test" / "labels.jsonl", labels)
    save_signals(workdir / "test" / "signals.npz", signals, POLICY.draft)
    sections = signal_sections(POLICY.policy(), traces, labels, signals)
    sections |= {"offsets": offsets_of(records, labels), "target": "Qwen3-8B sha256:0", "notes": ["split test"]}
    sections |= {"latency_split": SPLIT, "acceptance_position": POSITIONS, "frontier": FRONTIER}
    return publish(workdir, records, Shown(sections))
