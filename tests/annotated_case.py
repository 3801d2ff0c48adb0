"""An annotated split on disk with boundaries at paragraph ends and before markers; forced answers are right only at the former."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from specexit_jax.exits.boundaries import make_boundaries
from specexit_jax.exits.labels import sufficient_boundary
from specexit_jax.storage.jsonl import append_jsonl

TEXTS = ["", "a", "b.\n\n", "c\n", "Wait", "</think>", "4", "<|end|>"]
STOP, END = 7, 5
IDS = [1, 3, 4, 2, 1, 3, 4, 2, END, 6, STOP]  # a marker, a paragraph, a marker, a paragraph
MARKERS, PARAGRAPHS = [1, 5], [3, 7]
KINDS = ("paragraph", "marker")
SESSION = SimpleNamespace(
    boundaries=lambda kinds=("paragraph",): make_boundaries(TEXTS, kinds),
    end_think_ids=(END,),
    stop_ids=(STOP,),
    draft=None,
    draft_digest="digest",
    params=SimpleNamespace(draft=None, d2t=None),
)


def traces_and_labels(count: int, kinds=KINDS) -> tuple[list[dict], list[dict]]:
    """The forced answer is wrong before a marker and right after a paragraph; all forced answers end with a stop token."""
    places = sorted((MARKERS if "marker" in kinds else []) + (PARAGRAPHS if "paragraph" in kinds else []))
    traces, labels = [], []
    for number in range(count):
        name = {"id": f"a/test/{number}", "task": "a", "split": "test"}
        own = {
            "prompt_ids": [1],
            "ids": IDS,
            "think_end": 8,
            "answer": "4",
            "correct": True,
            "finish": "stop",
            "seed": 0,
        }
        traces.append(name | own)
        right = [place in PARAGRAPHS for place in places]
        labels.append(
            {
                "id": name["id"],
                "boundaries": places,
                "forced_ids": [[6, STOP]] * len(places),
                "forced": ["4" if one else "3" for one in right],
                "finished": [True] * len(places),
                "agree": right,
                "correct": right,
                "logprob": [-0.1] * len(places),
                "first": sufficient_boundary(right, "first"),
                "stable": sufficient_boundary(right, "stable"),
            }
        )
    return traces, labels


def write_split(folder: Path, traces: list[dict], labels: list[dict], kinds=KINDS, max_answer: int = 16) -> Path:
    append_jsonl(folder / "traces.jsonl", traces)
    append_jsonl(folder / "labels.jsonl", labels)
    settings = {"kinds": list(kinds), "max_answer": max_answer, "max_new_tokens": 40}
    (folder / "annotate.json").write_text(json.dumps({"settings": settings, "measured": {}}))
    return folder


def sure_everywhere(traces: list[dict]) -> dict[str, np.ndarray]:
    """Signals that pass every threshold at every token."""
    return {trace["id"]: np.tile(np.float32([1.0, 1.0, 0.0]), (len(trace["ids"]), 1)) for trace in traces}
