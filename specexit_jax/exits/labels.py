"""What the signals are trained towards: T*, and a label for every thinking token (docs/method.md §1)."""

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
    """Labels and weights of every generated token, one column a signal (values, not raw outputs).

    mask is 0 where a token has no such label: outside the thinking always; where the trace never closed its thinking, of the
    signals that have none then. values are 0 there.
    """

    values: Float[np.ndarray, "T S"]
    mask: Float[np.ndarray, "T S"]


def sufficient_boundary(agree: Sequence[float], kind: str = "stable", m: int = 3) -> int | None:
    """Index of the first boundary after which thinking on is of no use, None where there is none.

    agree[i]: the answer forced at boundary i agrees with the final one (a fraction counts from one half on).
    `first`: the earliest that agrees. `stable`: the earliest that agrees and is followed by agreement at the next m
    boundaries, or at all that remain.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of sufficient boundary '{kind}': choose one of {', '.join(KINDS)}")
    agrees = np.asarray(agree, np.float32) >= 0.5
    reach = 1 if kind == "first" else m + 1
    return next((i for i in range(len(agrees)) if agrees[i : i + reach].all()), None)


def confidence_targets(label: dict, kind: str = "one") -> list[float]:
    """What confidence is trained towards at each boundary of a row of labels.jsonl, in [0, 1].

    `one`: whether the answer forced there agrees, under the trace's own key. `keys`: the share of several keys under
    which it does. `deer`: exp of the mean log-probability of the forced answer's tokens, 0 where there are none.
    Raises ValueError where the labels lack what is asked for.
    """
    if kind not in CONFIDENCES:
        raise ValueError(f"unknown confidence '{kind}': choose one of {', '.join(CONFIDENCES)}")
    if kind == "one":
        return [float(agree) for agree in label["agree"]]
    if kind == "deer":
        pairs = zip(label["logprob"], label["forced_ids"], strict=True)
        return [min(math.exp(mean), 1.0) if ids else 0.0 for mean, ids in pairs]
    if "agree_share" not in label:
        raise ValueError(
            f"the labels of {label['id']} are of one key: annotate with --config.annotate.request_keys=4 in a new workdir"
        )
    return [float(share) for share in label["agree_share"]]


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

    boundaries: indices of the boundary tokens, ascending, inside the thinking; agree: one value each; sufficient:
    index into them. T* counts the thinking tokens up to and including the sufficient boundary. A trace that closes its
    thinking without one is sufficient where it closes, for there it agrees with itself; the paragraph that ends at
    `</think>` has confidence 1 for the same reason.

    A trace that never closes has no T*: it gives no confidence and no remain, and progress 0, the limit of t / T* as
    T* grows without bound, so that it can only teach the draft not to exit.

    place: `paragraph_end` gives a token the labels of the boundary it leads to, a boundary its own. The ablations:
    `next_boundary` gives a boundary those of the one after it, where an exit that lags a step would fall; `token` counts
    progress and remain at the token itself.

    signals: names of the columns; None: those that a new draft is trained with.
    """
    _check(length, think_end, boundaries, agree, sufficient, place)
    thinking = length if think_end is None else think_end
    names = draft_signals() if signals is None else signals
    values, mask = np.zeros((length, len(names)), np.float32), np.zeros((length, len(names)), np.float32)
    ends = np.asarray([*boundaries, thinking - 1], np.int64)
    # the first boundary at each token or after it, else `</think>`
    own = np.searchsorted(ends[:-1], np.arange(thinking), side="right" if place == "next_boundary" else "left")
    enough = None
    if think_end is not None:
        enough = thinking if sufficient is None else boundaries[sufficient] + 1
    seen = 1.0 + (np.arange(thinking) if place == "token" else ends[own])
    trace = Labelled(np.asarray([*agree, 1.0], np.float32)[own], seen, enough)
    for column, name in enumerate(names):
        if (label := SIGNALS[name].label(trace)) is not None:
            values[:thinking, column], mask[:thinking, column] = label, 1.0
    return TokenLabels(values, mask)


def _check(length, think_end, boundaries, agree, sufficient, place) -> None:
    thinking = length if think_end is None else think_end
    if place not in PLACES:
        raise ValueError(f"unknown place of labels '{place}': choose one of {', '.join(PLACES)}")
    if not 0 <= thinking <= length:
        raise ValueError(f"</think> at index {think_end} lies outside a trace of {length} tokens")
    if len(agree) != len(boundaries):
        raise ValueError(f"{len(boundaries)} boundaries but {len(agree)} agreements: annotate the trace again")
    if any(b <= a for a, b in pairwise([-1, *boundaries])) or (len(boundaries) and boundaries[-1] >= thinking):
        raise ValueError(f"boundaries must ascend inside the {thinking} thinking tokens: annotate the trace again")
    if sufficient is not None and not 0 <= sufficient < len(boundaries):
        raise ValueError(f"sufficient boundary {sufficient} is not one of the {len(boundaries)} boundaries")
