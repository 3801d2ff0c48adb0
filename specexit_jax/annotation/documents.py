"""Labelled traces as training documents of the draft, and the vocabulary that the draft speaks."""

from collections.abc import Sequence

import numpy as np

from specexit_jax.annotation.replay import join_labels
from specexit_jax.data.packing import Rows, pack
from specexit_jax.exits.labels import token_labels


def labelled_rows(
    traces: Sequence[dict],
    labels: Sequence[dict],
    row_length: int,
    kind: str = "stable",
    seed: int = 0,
    boundary_weight: float = 1.0,
) -> Rows:
    """Packed rows with `labels` and `label_mask` [R, T, 3] beside the usual columns; no loss on prompts.

    kind: which T* progress and remain count towards, `stable` or `first`. boundary_weight: of a boundary token in the
    signal losses, where other tokens weigh 1: exits read the signals there. Traces longer than a row are an error.
    """
    documents, values, masks = [], [], []
    for trace, label in zip(traces, join_labels(traces, labels), strict=True):
        prompt, length = len(trace["prompt_ids"]), len(trace["ids"])
        made = token_labels(length, trace["think_end"], label["boundaries"], label["agree"], label[kind])
        made.mask[label["boundaries"]] *= boundary_weight
        silent = np.zeros((prompt, 3), np.float32)
        ids = np.array([*trace["prompt_ids"], *trace["ids"]], np.int32)
        documents.append((ids, np.arange(len(ids)) >= prompt))
        values.append(np.concatenate([silent, made.values]))
        masks.append(np.concatenate([silent, made.mask]))
    return pack(documents, row_length, seed, {"labels": values, "label_mask": masks})


def frequent_tokens(traces: Sequence[dict], vocab_size: int, size: int, always: Sequence[int] = ()) -> np.ndarray:
    """int32[size], ascending: `always` and the tokens that the traces generate most often, ties to the lower id."""
    if not 0 < size <= vocab_size:
        raise ValueError(f"a draft vocabulary of {size} tokens does not fit a target vocabulary of {vocab_size}")
    counts = np.zeros(vocab_size, np.int64)
    for trace in traces:
        np.add.at(counts, np.asarray(trace["ids"], np.int64), 1)
    counts[list(always)] = np.iinfo(np.int64).max
    return np.sort(np.argsort(-counts, kind="stable")[:size]).astype(np.int32)
