"""Labelled traces as training documents of the draft, and the draft's vocabulary."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specexit_jax.annotation.kinds import labels_at
from specexit_jax.annotation.sparse import filled
from specexit_jax.data.packing import Columns, PackedRows
from specexit_jax.exits.boundaries import Boundaries
from specexit_jax.exits.labels import confidence_targets, token_labels
from specexit_jax.storage.shards import read_shards

BEFORE, AFTER = 1, 2  # phases of a token; 0: neither


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """kind: the T* that progress and remain count towards, `stable` or `first`. place: the boundary whose label a token
    has (`exits.labels.token_labels`). confidence: see `exits.labels.confidence_targets`. boundary_weight: weight of a
    boundary token in the signal losses, relative to 1 for other tokens; exits read the signals at boundaries.
    """

    kind: str = "stable"
    place: str = "paragraph_end"
    confidence: str = "one"
    boundary_weight: float = 1.0


class Traces:
    """The traces of a split, with their labels if it has been annotated, as documents of at most `longest` tokens.

    A document's columns: tokens, loss_mask (what the model wrote) and, for labelled traces, labels and label_mask [n, S]
    (a column for each of `draft_signals`), boundary (bool), agree (0 or 1 at boundaries), phase (thinking BEFORE T* and
    AFTER it; 0 elsewhere).

    A split that was annotated at some of its boundaries has them all (`sparse.filled`): progress and remain are exact, and
    confidence is masked where it is not known.

    boundaries: the kinds that are used, of those in the labels (None: all). int64 [documents] each: `lengths`, cut to
    `longest`; `whole`, before the cut; `prompts`. `cut`: how many documents were cut. Traces and labels are read from disk when
    needed; the lengths are those of the index. Raises ValueError if traces and labels do not fit together.
    """

    def __init__(
        self,
        folder: str | Path,
        longest: int,
        options: LabelOptions = LabelOptions(),
        labelled: bool = True,
        boundaries: Boundaries | None = None,
    ):
        folder, self.boundaries = Path(folder), boundaries
        self.options, self.longest = options, longest
        self.traces, self._labels = read_shards(folder, "traces"), None
        self.prompts = np.array(self.traces.column("prompt_ids"), np.int64)
        self.whole = self.prompts + np.array(self.traces.column("ids"), np.int64)
        self.lengths = np.minimum(self.whole, longest)
        self.cut = int(np.sum(self.whole > longest))
        if labelled:
            self._labels = read_shards(folder, "labels").brief()
            missing = [name for name in self.traces.ids if name not in self._labels.by_id]
            if missing:
                raise ValueError(f"{folder}: {len(missing)} traces have no label ({missing[0]}): annotate them first")

    def __len__(self) -> int:
        return len(self.traces)

    @property
    def labelled(self) -> bool:
        return self._labels is not None

    def __getitem__(self, number: int) -> Columns:
        trace = self.traces[number]
        label = None if self._labels is None else filled(self._labels.by_id[trace["id"]])
        if label is not None and self.boundaries is not None:
            (label,) = labels_at([trace], [label], self.boundaries)
        columns = document(trace, label, self.options)
        return {name: values[: self.longest] for name, values in columns.items()}


def document(trace: dict, label: dict | None, options: LabelOptions = LabelOptions()) -> Columns:
    """The columns of one trace (see `Traces`)."""
    prompt, length = len(trace["prompt_ids"]), len(trace["ids"])
    ids = np.array([*trace["prompt_ids"], *trace["ids"]], np.int32)
    columns = {"tokens": ids, "loss_mask": np.arange(len(ids)) >= prompt}
    if label is None:
        return columns
    places, sufficient = np.array(label["boundaries"], np.int64), label[options.kind]
    targets = confidence_targets(label, options.confidence)
    made = token_labels(length, trace["think_end"], label["boundaries"], targets, sufficient, options.place)
    made.mask[places] *= options.boundary_weight
    boundary, agree = np.zeros(length, bool), np.zeros(length, np.float32)
    boundary[places], agree[places] = True, np.array(label["agree"], np.float32)
    phase = np.zeros(length, np.int32)
    if trace["think_end"] is not None:
        enough = trace["think_end"] if sufficient is None else places[sufficient] + 1
        phase[:enough], phase[enough : trace["think_end"]] = BEFORE, AFTER
    written = {"labels": made.values, "label_mask": made.mask, "boundary": boundary, "agree": agree, "phase": phase}
    return columns | {
        name: np.concatenate([np.zeros((prompt, *v.shape[1:]), v.dtype), v]) for name, v in written.items()
    }


def frequent_tokens(traces: Sequence[dict], vocab_size: int, size: int, always: Sequence[int] = ()) -> np.ndarray:
    """int32[size], ascending: `always`, and the tokens that the traces generate most often; ties go to the lower id."""
    if not 0 < size <= vocab_size:
        raise ValueError(f"a draft vocabulary of {size} tokens does not fit a target vocabulary of {vocab_size}")
    counts = np.zeros(vocab_size, np.int64)
    for trace in traces:
        counts += np.bincount(np.asarray(trace["ids"], np.int64), minlength=vocab_size)
    counts[list(always)] = np.iinfo(np.int64).max
    return np.sort(np.argsort(-counts, kind="stable")[:size]).astype(np.int32)


def packed(traces: Traces, row_length: int, seed: int = 0, together: bool = True) -> PackedRows:
    """The traces packed into rows (see `data.packing.PackedRows`)."""
    return PackedRows(traces, traces.lengths, row_length, seed, together)
