"""Running statistics of a trace's signals and readings: what an exit score is computed from (docs/score.md).

They are of the thinking so far: of the whole trace, of the current paragraph and of the first one. Each has O(1) state a row and
is updated token by token, so that the values do not depend on how verify steps divide the text.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from specexit_jax.exits.readings import WRITTEN
from specexit_jax.exits.signals import deactivate

SURPRISED = 1.0  # nats from which on a token counts as surprising
_R = len(WRITTEN)


@flax.struct.dataclass
class Statistics:
    """The state after some tokens. Leaves [B, 3] have a column for each reading in WRITTEN, those [B, P] one for each signal
    and one for the reading `closing`.

    sums, largest, second: of the trace: the sum, the largest value and the second largest. paragraph_sums, paragraph_largest: of
    the current paragraph. first: mean and largest value of the first paragraph, or of what there is of it. worst: the largest
    mean of a finished paragraph. counts: tokens of the trace and of the paragraph, finished paragraphs, surprising tokens of the
    trace and of the paragraph. highest, lowest, previous, total: of the raw signals and of closing at the boundaries so far.
    """

    sums: Float[Array, "B 3"]
    largest: Float[Array, "B 3"]
    second: Float[Array, "B 3"]
    paragraph_sums: Float[Array, "B 3"]
    paragraph_largest: Float[Array, "B 3"]
    first: Float[Array, "B 6"]
    worst: Float[Array, "B 3"]
    counts: Float[Array, "B 5"]
    highest: Float[Array, "B P"]
    lowest: Float[Array, "B P"]
    previous: Float[Array, "B P"]
    total: Float[Array, "B P"]


def no_statistics(batch: int, signals: int) -> Statistics:
    """The state before the first token of thinking."""
    of_readings, of_signals = jnp.zeros((batch, _R), jnp.float32), jnp.zeros((batch, signals + 1), jnp.float32)
    counts, first = jnp.zeros((batch, 5), jnp.float32), jnp.zeros((batch, 2 * _R), jnp.float32)
    return Statistics(*[of_readings] * 5, first, of_readings, counts, *[of_signals] * 4)


def statistics_step(
    names: tuple[str, ...], state: Statistics, values: Float[Array, "B C"], boundary: Bool[Array, " B"]
) -> tuple[Statistics, Float[Array, "B F"]]:
    """(the state after one more token, the statistics that include it: a column for each of `statistic_names`).

    names: of the S signals. values: the token's signals, activated, then its readings. boundary: whether the token ends a
    paragraph; it still belongs to it.
    """
    signals, seen, ahead = jnp.split(values, (len(names), len(names) + _R), axis=1)
    signals = jnp.concatenate([deactivate(signals, names), ahead[:, :1]], axis=1)  # those whose past is kept
    tokens, length, paragraphs, surprising, surprising_here = jnp.split(state.counts, 5, axis=1)
    surprised = (seen[:, :1] > SURPRISED).astype(jnp.float32)
    tokens, length = tokens + 1, length + 1
    surprising, surprising_here = surprising + surprised, surprising_here + surprised
    sums, paragraph_sums = state.sums + seen, state.paragraph_sums + seen
    largest = jnp.maximum(state.largest, seen)
    second = jnp.maximum(state.second, jnp.minimum(state.largest, seen))
    paragraph_largest = jnp.maximum(state.paragraph_largest, seen)
    mean = paragraph_sums / length
    first = jnp.where(paragraphs == 0, jnp.concatenate([mean, paragraph_largest], axis=1), state.first)
    worst = jnp.maximum(state.worst, mean)
    past = paragraphs > 0
    highest, lowest = (jnp.where(past, known, signals) for known in (state.highest, state.lowest))
    previous = jnp.where(past, state.previous, signals)
    usual = jnp.where(past, state.total / jnp.maximum(paragraphs, 1), signals)
    counted = [
        jnp.log1p(tokens),
        jnp.log1p(length),
        jnp.log1p(paragraphs),
        surprising / tokens,
        surprising_here / length,
    ]
    told = [sums / tokens, largest, second, mean, paragraph_largest, first, worst, seen, *counted]
    told += [ahead[:, 1:], signals, highest, lowest, previous, usual]
    ends = boundary[:, None]
    counts = [
        tokens,
        jnp.where(ends, 0, length),
        paragraphs + ends.astype(jnp.float32),
        surprising,
        jnp.where(ends, 0, surprising_here),
    ]
    after = Statistics(
        sums=sums,
        largest=largest,
        second=second,
        paragraph_sums=jnp.where(ends, 0, paragraph_sums),
        paragraph_largest=jnp.where(ends, 0, paragraph_largest),
        first=first,
        worst=jnp.where(ends, worst, state.worst),
        counts=jnp.concatenate(counts, axis=1),
        highest=jnp.where(ends, jnp.maximum(highest, signals), state.highest),
        lowest=jnp.where(ends, jnp.minimum(lowest, signals), state.lowest),
        previous=jnp.where(ends, signals, state.previous),
        total=jnp.where(ends, state.total + signals, state.total),
    )
    return after, jnp.concatenate(told, axis=1)


def statistic_names(signals: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the columns of `statistics_step`, for a draft with these signals."""
    of_text = ("mean", "largest", "second", "paragraph mean", "paragraph largest", "first mean", "first largest")
    found = [f"{part} {reading}" for part in (*of_text, "worst mean", "last") for reading in WRITTEN]
    found += ["tokens", "paragraph tokens", "paragraphs", "surprising", "paragraph surprising"]
    kept = (*signals, "closing")
    found += [
        "next_entropy",
        *(f"{part} {name}" for part in ("raw", "highest", "lowest", "previous", "usual") for name in kept),
    ]
    return tuple(found)
