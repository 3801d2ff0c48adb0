"""One teacher-forced pass over traces: signals and readings at every token, the captured features at every boundary.

Nothing is decoded: the target's features of a trace's tokens are those that the decoding loop saw when it wrote them.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.exits.readings import READINGS, WRITTEN, readings_ahead, written_readings
from specexit_jax.exits.signals import activate
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.draft import draft_of
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.target import Target
from specexit_jax.monitoring.progress import Progress
from specexit_jax.storage.rows import brief_rows, taken, whole_rows

ROWS, STEP = 16, 128  # traces per batch; lengths are padded to multiples, so that few shapes are compiled
TOKENS = 2**17  # of a batch, at most: longer traces than 8,192 tokens come in batches of fewer rows


@functools.partial(jax.jit, static_argnums=0)
def _features(config: TargetConfig, params: dict, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    return Target(config).apply({"params": params}, tokens, positions, logits=False).features


@functools.partial(jax.jit, static_argnums=(0, 1))
def _features_and_readings(config: TargetConfig, end_think_ids: tuple[int, ...], params: dict, tokens, positions):
    """Also the readings [B, T, R] of the tokens; those WRITTEN are 0 for the first. The logits of STEP tokens are in memory at a
    time."""
    target = functools.partial(Target(config).apply, {"params": params})
    out = target(tokens, positions, logits=False)
    chunks = tokens.shape[1] // STEP

    def read(part):
        logits = target(part[0], method="head")
        return jnp.concatenate([written_readings(logits, part[1]), readings_ahead(logits, end_think_ids)], axis=-1)

    apart = lambda values: jnp.moveaxis(values.reshape(values.shape[0], chunks, STEP, *values.shape[2:]), 1, 0)  # noqa: E731
    found = jax.lax.map(read, (apart(out.hidden), apart(jnp.roll(tokens, -1, axis=1))))
    found = jnp.moveaxis(found, 0, 1).reshape(*tokens.shape, -1)
    written = jnp.roll(found[..., : len(WRITTEN)], 1, axis=1)
    first = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :, None] == 0
    return out.features, jnp.concatenate([jnp.where(first, 0.0, written), found[..., len(WRITTEN) :]], axis=-1)


@jax.jit
def _at(features: jax.Array, places: jax.Array) -> jax.Array:
    """float32 [B, P, A] at the places [B, P]: of long traces the host takes only these."""
    return jnp.take_along_axis(features, places[..., None], axis=1).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _signals(config, params: dict, embedding: jax.Array, features, tokens, positions) -> jax.Array:
    """Activated signals [B, T, S] of each token; with placement `draft` they are read from the pair before the
    token."""
    draft, variables = draft_of(config), {"params": params}
    hidden, raw = draft.apply(variables, features, method="fuse")
    if config.signals == "draft":
        following = jnp.take(embedding, jnp.roll(tokens, -1, axis=1), axis=0).astype(config.dtype)
        raw = jnp.roll(draft.apply(variables, following, hidden, positions).raw_signals, 1, axis=1)
    return activate(raw, config.signal_names)


def _each(
    config: TargetConfig, params: dict, traces: Sequence[dict], readings: tuple[int, ...] | None
) -> Iterator[tuple[list[dict], jax.Array, jax.Array | None, np.ndarray]]:
    """(traces of a batch, features [B, T, A], readings [B, T, R] or None, tokens [B, T]) for all traces with generated tokens,
    shortest first; B is ROWS, or fewer where these have more than TOKENS tokens. A trace whose prompt fills the context has
    none."""
    bar = Progress(len(traces), "features ")
    lengths = [len(trace["prompt_ids"]) + len(trace["ids"]) if trace["ids"] else 0 for trace in brief_rows(traces)]
    order = [int(number) for number in np.argsort(lengths, kind="stable") if lengths[number]]
    start = 0
    while start < len(order):
        size = max(min(ROWS, TOKENS // _padded(lengths[n] for n in order[start : start + ROWS])), 1)
        chosen = list(taken(whole_rows(traces), order[start : start + size]))
        tokens = np.zeros((size, _padded(lengths[n] for n in order[start : start + size])), np.int32)
        for row, trace in enumerate(chosen):
            ids = [*trace["prompt_ids"], *trace["ids"]]
            tokens[row, : len(ids)] = ids
        if readings is not None:
            yield chosen, *_features_and_readings(config, readings, params, tokens, _positions(tokens)), tokens
        else:
            yield chosen, _features(config, params, tokens, _positions(tokens)), None, tokens
        start += len(chosen)
        bar.update(start)


def _padded(lengths: Iterable[int]) -> int:
    """The tokens of a row that holds the longest of these."""
    return -(-max(lengths) // STEP) * STEP


def _positions(tokens: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)


class Extracted(NamedTuple):
    """Arrays by trace id. signals: float32 [generated tokens, S + R], row i for ids[i]: the draft's signals, activated, then the
    target's readings (`readings.READINGS`); empty without a draft. A policy reads the leading columns of them (`Policy.reads`).
    features: captured, float32 [boundaries, A], in the order of the label's boundaries; empty without labels.
    """

    signals: dict[str, np.ndarray]
    features: dict[str, np.ndarray]


def extract(
    config: TargetConfig,
    params: dict,
    end_think_ids: Sequence[int],
    traces: Sequence[dict],
    draft: DraftBundle | None = None,
    labels: Sequence[dict] = (),
) -> Extracted:
    """Signals and readings along the traces, if a draft is given, and the features at the boundaries of the labels, in one pass.

    end_think_ids: the ids of `</think>`, for readings. Raises ValueError for a draft without signals.
    """
    if draft is not None and draft.config.signals == "none":
        raise ValueError("this draft has no signal heads: train one with signals at 'fc' or 'draft'")
    boundaries = {label["id"]: np.asarray(label["boundaries"], np.int64) for label in labels}
    found = Extracted({}, {})
    for name, signals, features in _along(config, params, end_think_ids, traces, draft, boundaries):
        if draft is not None:
            found.signals[name] = signals
        if boundaries:
            found.features[name] = features
    return found


def signals_along(
    config: TargetConfig, params: dict, end_think_ids: Sequence[int], traces: Sequence[dict], draft: DraftBundle
) -> Iterator[tuple[str, np.ndarray]]:
    """(id, signals as in `Extracted`) of every trace, as they are computed: one batch is in memory at a time."""
    for name, signals, _ in _along(config, params, end_think_ids, traces, draft, {}):
        yield name, signals


def _along(
    config: TargetConfig,
    params: dict,
    end_think_ids: Sequence[int],
    traces: Sequence[dict],
    draft: DraftBundle | None,
    boundaries: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """(id, signals, features at the boundaries) of every trace; None for what is not asked for."""
    width = None if draft is None else draft.config.signal_rows + len(READINGS)
    for trace in brief_rows(traces):
        if not trace["ids"]:
            none = np.zeros((0, config.feature_size), np.float32)
            yield trace["id"], None if width is None else np.zeros((0, width), np.float32), none
    batches = _each(config, params, traces, None if draft is None else tuple(end_think_ids))
    for chosen, features, readings, tokens in batches:
        starts = [len(trace["prompt_ids"]) for trace in chosen]
        signals = host = None
        if draft is not None:
            embedding = (draft.params if draft.config.own_embedding else params)["embed"]["embedding"]
            signals = _signals(draft.config, draft.params, embedding, features, tokens, _positions(tokens))
            signals = np.concatenate([signals, readings], axis=-1)
        if boundaries:
            own = [start + boundaries[trace["id"]] for start, trace in zip(starts, chosen, strict=True)]
            places = np.zeros((len(tokens), -(-max(map(len, own)) // 64) * 64), np.int32)
            for row, at in enumerate(own):
                places[row, : len(at)] = at
            host = np.asarray(_at(features, places))
        for row, (start, trace) in enumerate(zip(starts, chosen, strict=True)):  # copies: not views of the whole batch
            one = None if signals is None else signals[row, start : start + len(trace["ids"])].copy()
            yield trace["id"], one, None if host is None else host[row, : len(own[row])].copy()
