"""The training labels of the signals: T*, and a label for every thinking token (docs/method.md §1)."""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from specexit_jax.exits.signals import SIGNALS, Labelled, draft_signals

KINDS = ("stable", "first")
PLACES = ("paragraph_end", "next_boundary", "token")
CONFIDENCES = ("one", "keys", "deer")


@dataclasses.dataclass(frozen=True)
class TokenLabels:
    """Labels of every generated token, one column a signal, on the signals' own scales.

    mask: 1 where a token has the label, else 0. It is 0 outside the thinking. In a trace that never closed its thinking it is
    also 0 for signals without a label there. values are 0 where mask is 0.
    """

    values: Float[np.ndarray, "T S"]
    mask: Float[np.ndarray, "T S"]


def sufficient_boundary(agree: Sequence[float], kind: str = "stable", m: int = 3) -> int | None:
    """Index of the sufficient boundary, after which further thinking is of no use; None where there is none.

    agree[i]: whether the answer forced at boundary i agrees with the final one; a fraction counts as agreement from 0.5 on.
    kind `first`: the earliest boundary that agrees. kind `stable`: the earliest that agrees and whose next m boundaries (or all
    that remain) agree too. Raises ValueError on an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of sufficient boundary '{kind}': choose one of {', '.join(KINDS)}")
    agrees = np.asarray(agree, np.float32) >= 0.5
    reach = 1 if kind == "first" else m + 1
    return next((i for i in range(len(agrees)) if agrees[i : i + reach].all()), None)


def confidence_targets(label: dict, kind: str = "one") -> list[float]:
    """The label of confidence, in [0, 1], at each boundary of a row of labels.jsonl; nan where it is not known (see
    `annotation.sparse.filled`).

    kind `one`: whether the answer forced there under the trace's own key agrees. `keys`: the share of several keys under which it
    agrees. `deer`: exp of the mean log-probability of the forced answer's tokens; 0 where it has none. Raises ValueError on an
    unknown kind, and where the labels do not hold what the kind needs.
    """
    if kind not in CONFIDENCES:
        raise ValueError(f"unknown confidence '{kind}': choose one of {', '.join(CONFIDENCES)}")
    if kind == "one":
        known = label.get("known", [True] * len(label["agree"]))
        return [float(agree) if sure else math.nan for agree, sure in zip(label["agree"], known, strict=True)]
    if kind == "deer":
        pairs = zip(label["logprob"], label["forced_ids"], strict=True)
        return [math.nan if ids is None else min(math.exp(mean), 1.0) if ids else 0.0 for mean, ids in pairs]
    if "agree_share" not in label:
        raise ValueError(
            f"the labels of {label['id']} were made with one key, but confidence 'keys' needs several: annotate with "
            "--config.annotate.request_keys=4 in a new workdir"
        )
    return [math.nan if share is None else float(share) for share in label["agree_share"]]


def token_labels(
    length: int,
    think_end: int | None,
    boundaries: Sequence[int],
    agree: Sequence[float],
    sufficient: int | None,
    place: str = "paragraph_end",
    signals: Sequence[str] | None = None,
) -> TokenLabels:
    """Labels of a trace of `length` generated tokens whose `</think>` is at index `think_end` (None: never closed).

    boundaries: indices of the boundary tokens inside the thinking, ascending. agree: the agreement at each; nan where it is not
    known, and what depends on it is masked. sufficient: an index into `boundaries`, or None. signals: names of the columns; None:
    those that a new draft is trained with.

    T* is the number of thinking tokens up to and including the sufficient boundary. A trace that closes its thinking without a
    sufficient boundary has T* at `</think>`, because the answer there is the final one. For the same reason the tokens after the
    last boundary have confidence 1.

    A trace that never closes its thinking has no T*. Its tokens have no confidence, no remain, and progress 0, which is the limit
    of t / T* as T* grows. So it can only teach the draft not to exit.

    place: `paragraph_end` gives each token the labels of the boundary at or after it. Two ablations: `next_boundary` gives each
    token the labels of the boundary strictly after it, as for an exit that comes one boundary late; `token` counts progress
    and remain at the token itself. Raises ValueError on inconsistent arguments.
    """
    _check(length, think_end, boundaries, agree, sufficient, place)
    thinking = length if think_end is None else think_end
    names = draft_signals() if signals is None else signals
    values, mask = np.zeros((length, len(names)), np.float32), np.zeros((length, len(names)), np.float32)
    ends = np.asarray([*boundaries, thinking - 1], np.int64)
    # the index in `ends` of the first boundary at or after each token, or of the last thinking token
    own = np.searchsorted(ends[:-1], np.arange(thinking), side="right" if place == "next_boundary" else "left")
    enough = None
    if think_end is not None:
        enough = thinking if sufficient is None else boundaries[sufficient] + 1
    seen = 1.0 + (np.arange(thinking) if place == "token" else ends[own])
    trace = Labelled(np.asarray([*agree, 1.0], np.float32)[own], seen, enough)
    for column, name in enumerate(names):
        if (label := SIGNALS[name].label(trace)) is not None:
            known = np.isfinite(label)
            values[:thinking, column], mask[:thinking, column] = np.where(known, label, 0.0), known
    return TokenLabels(values, mask)


def _check(length, think_end, boundaries, agree, sufficient, place) -> None:
    thinking = length if think_end is None else think_end
    if place not in PLACES:
        raise ValueError(f"unknown place of labels '{place}': choose one of {', '.join(PLACES)}")
    if not 0 <= thinking <= length:
        raise ValueError(
            f"</think> at index {think_end} lies outside a trace of {length} tokens: annotate the trace again"
        )
    if len(agree) != len(boundaries):
        raise ValueError(f"{len(boundaries)} boundaries but {len(agree)} agreements: annotate the trace again")
    if any(b <= a for a, b in pairwise([-1, *boundaries])) or (len(boundaries) and boundaries[-1] >= thinking):
        raise ValueError(f"boundaries must ascend inside the {thinking} thinking tokens: annotate the trace again")
    if sufficient is not None and not 0 <= sufficient < len(boundaries):
        raise ValueError(f"sufficient boundary {sufficient} is not one of the {len(boundaries)} boundaries")
