"""One teacher-forced pass over traces: signals and readings at every token, the captured features at every boundary.

Nothing is decoded: the target's features of a trace's tokens are those that the decoding loop saw when it wrote them.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.exits.readings import READINGS, WRITTEN, readings_ahead, written_readings
from specexit_jax.exits.signals import activate
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.draft import Draft, DraftBundle
from specexit_jax.models.target import Target
from specexit_jax.monitoring.progress import Progress
from specexit_jax.storage.identity import same

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
    """float32 [B, P, 3D] at the places [B, P]: of long traces the host takes only these."""
    return jnp.take_along_axis(features, places[..., None], axis=1).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _signals(config, params: dict, embedding: jax.Array, features, tokens, positions) -> jax.Array:
    """Activated signals [B, T, S] of each token; with placement `draft` they are read from the pair before the
    token."""
    draft, variables = Draft(config), {"params": params}
    hidden, raw = draft.apply(variables, features, method="fuse")
    if config.signals == "draft":
        following = jnp.take(embedding, jnp.roll(tokens, -1, axis=1), axis=0).astype(config.dtype)
        raw = jnp.roll(draft.apply(variables, following, hidden, positions).raw_signals, 1, axis=1)
    return activate(raw, config.signal_names)


def _each(
    config: TargetConfig,
    params: dict,
    traces: Sequence[dict],
    visit: Callable[[list[dict], jax.Array, jax.Array | None, np.ndarray], None],
    readings: tuple[int, ...] | None,
) -> None:
    """Calls visit(traces of a batch, features [B, T, 3D], readings [B, T, R] or None, tokens [B, T]) for all traces with
    generated tokens, shortest first; B is ROWS, or fewer where these have more than TOKENS tokens. A trace whose prompt fills
    the context has none."""
    bar = Progress(len(traces), "features ")
    written = [i for i, trace in enumerate(traces) if trace["ids"]]
    order = sorted(written, key=lambda i: len(traces[i]["prompt_ids"]) + len(traces[i]["ids"]))
    start = 0
    while start < len(order):
        chosen = [traces[i] for i in order[start : start + ROWS]]
        size = max(min(ROWS, TOKENS // _padded(chosen)), 1)
        chosen = chosen[:size]
        tokens = np.zeros((size, _padded(chosen)), np.int32)
        for row, trace in enumerate(chosen):
            ids = [*trace["prompt_ids"], *trace["ids"]]
            tokens[row, : len(ids)] = ids
        if readings is not None:
            visit(chosen, *_features_and_readings(config, readings, params, tokens, _positions(tokens)), tokens)
        else:
            visit(chosen, _features(config, params, tokens, _positions(tokens)), None, tokens)
        start += len(chosen)
        bar.update(start)


def _padded(traces: Sequence[dict]) -> int:
    """The tokens of a row that holds the longest of them."""
    return -(-max(len(trace["prompt_ids"]) + len(trace["ids"]) for trace in traces) // STEP) * STEP


def _positions(tokens: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)


class Extracted(NamedTuple):
    """Arrays by trace id. signals: float32 [generated tokens, S + R], row i for ids[i]: the draft's signals, activated, then the
    target's readings (`readings.READINGS`); empty without a draft. A policy reads the leading columns of them (`Policy.reads`).
    features: captured, float32 [boundaries, 3D], in the order of the label's boundaries; empty without labels.
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
    for trace in traces:
        if not trace["ids"] and draft is not None:
            found.signals[trace["id"]] = np.zeros((0, draft.config.signal_rows + len(READINGS)), np.float32)
        if not trace["ids"] and boundaries:
            found.features[trace["id"]] = np.zeros((0, len(config.capture_layers) * config.hidden_size), np.float32)

    def visit(chosen: list[dict], features: jax.Array, readings: jax.Array | None, tokens: np.ndarray) -> None:
        if draft is not None:
            embedding = (draft.params if draft.config.own_embedding else params)["embed"]["embedding"]
            positions = _positions(tokens)
            signals = _signals(draft.config, draft.params, embedding, features, tokens, positions)
            signals = np.concatenate([signals, readings], axis=-1)
        starts = [len(trace["prompt_ids"]) for trace in chosen]
        if boundaries:
            own = [start + boundaries[trace["id"]] for start, trace in zip(starts, chosen, strict=True)]
            places = np.zeros((len(tokens), -(-max(map(len, own)) // 64) * 64), np.int32)
            for row, at in enumerate(own):
                places[row, : len(at)] = at
            host = np.asarray(_at(features, places))
        for row, (start, trace) in enumerate(zip(starts, chosen, strict=True)):
            if draft is not None:
                found.signals[trace["id"]] = signals[row, start : start + len(trace["ids"])]
            if boundaries:
                found.features[trace["id"]] = host[row, : len(own[row])].copy()  # not the whole batch

    _each(config, params, traces, visit, None if draft is None else tuple(end_think_ids))
    return found


def save_signals(path: str | Path, signals: Mapping[str, np.ndarray], draft: str) -> None:
    """Writes signals.npz: ids, lengths, all rows in one array, the names of the readings among their columns, and the digest of the
    draft that gave them."""
    path, ids = Path(path), list(signals)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npz")
    rows = np.concatenate([signals[i] for i in ids]) if ids else np.zeros((0, 0), np.float32)
    lengths = np.array([len(signals[i]) for i in ids])
    np.savez(temporary, ids=np.array(ids), lengths=lengths, rows=rows, draft=draft, readings=np.array(READINGS))
    os.replace(temporary, path)


def load_signals(path: str | Path, draft: str) -> dict[str, np.ndarray]:
    """The signals of a file. Raises FileNotFoundError, or ValueError if they came from another draft or lack readings."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: extract the signals first")
    with np.load(path) as file:
        if not same(draft, str(file["draft"])):
            raise ValueError(f"{path} holds the signals of another draft: remove it to extract them again")
        if "readings" not in file or tuple(file["readings"].tolist()) != READINGS:
            raise ValueError(f"{path} lacks the readings that this version computes: remove it to extract them again")
        starts = np.cumsum(file["lengths"])[:-1]
        return dict(zip(file["ids"].tolist(), np.split(file["rows"], starts), strict=True))
