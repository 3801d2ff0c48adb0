"""Labelled traces on disk for a small random target, and the other inputs of a draft's training."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from test_ttt import D2T, TARGET_CONFIG, V, make_draft, target_params

from specexit_jax.annotation.documents import LabelOptions, Traces, packed
from specexit_jax.exits.labels import sufficient_boundary
from specexit_jax.models.layer_stack import stack_layers
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.draft_run import DraftRun
from specexit_jax.training.optimizer import OptimizerConfig

ROW = 32


def write_split(folder: Path, count: int, seed: int = 0, longest: int = 24, ends: Sequence[int] = ()) -> Path:
    """traces.jsonl and labels.jsonl of `count` random traces, of which every fifth never closes its thinking. ends: ids that end a
    paragraph; the labels' boundaries are then exactly these tokens."""
    rng, folder = np.random.default_rng(seed), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    traces, labels = [], []
    for number in range(count):
        length = int(rng.integers(8, longest - 2))
        end = None if number % 5 == 4 else length - 3
        thinking = length if end is None else end
        places = sorted(rng.permutation(thinking)[: int(rng.integers(1, 5))].tolist())
        agree = [bool(rng.random() < 0.6) for _ in places]
        traces.append(
            {"id": f"t/{number}", "prompt_ids": rng.integers(0, V, 3).tolist(), "ids": rng.integers(0, V, length).tolist(),
             "think_end": end}
        )  # fmt: skip
        if ends:
            other = next(token for token in range(V) if token not in ends)
            ids = [other if token in ends else token for token in traces[-1]["ids"]]
            traces[-1]["ids"] = [ends[0] if place in places else token for place, token in enumerate(ids)]
        found = {kind: sufficient_boundary(agree, kind) for kind in ("stable", "first")}
        labels.append({"id": f"t/{number}", "boundaries": places, "agree": agree, **found})
    rng.shuffle(labels)
    for name, lines in (("traces", traces), ("labels", labels)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def rows_of(folder: Path, row_length: int = ROW, together: bool = True, **options):
    """A split's rows as a source."""
    return packed(Traces(folder, row_length, LabelOptions(**options)), row_length, together=together)


def training(signals: str = "fc", optimizer: str = "adamw", steps: int = 4, batch_size: int = 2, **run):
    """(run, target config, target parameters, draft config, d2t, optimizer) of a small run, as train_draft takes them
    around its rows. The target's layers are stacked, as a training session has them."""
    draft, _ = make_draft(signals)
    settings = DraftRun(batch_size, 0, DraftTrainingConfig(steps=2), **run)
    stacked = stack_layers(jax.tree.map(lambda leaf: leaf, target_params()))
    model = (TARGET_CONFIG, stacked, draft.config, D2T)
    return settings, model, OptimizerConfig(optimizer, total_steps=steps, warmup_steps=1)
