"""EAGLE-3 draft checkpoints, in and out: EAGLE folders, AngelSlim's SpecExit drafts, vLLM's (docs/formats.md).

They differ in names (`midlayer.` or `layers.0.`), in their config.json (hf_draft_config.py), and in where the signals
are: AngelSlim's `fc` has three rows more. Readers of the other two refuse such an `fc`; there the signals lie beside it,
in signals.specexit, which no other loader opens: they take every *.safetensors.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from specexit_jax.models.checkpoints.hf_draft_config import (
    FORMATS,
    Verifier,
    draft_json,
    is_speculators,
    read_draft_config,
    signal_names,
)
from specexit_jax.models.checkpoints.hf_layout import (
    Layout,
    Place,
    as_is,
    draft_layout,
    on_device,
    read,
    shapes,
    stacked,
    transposed,
    written,
)
from specexit_jax.models.checkpoints.hf_tensors import TensorSource, require, write_checkpoint
from specexit_jax.models.checkpoints.raw_tensors import Raw, require_tensors
from specexit_jax.models.config import DraftConfig
from specexit_jax.models.draft_layer import DraftBundle

__all__ = ["FORMATS", "digested", "draft_tensors", "eagle_name", "holds", "layout_of", "load", "save"]

EXPORTED, WITH_TARGET = "eagle", ("speculators",)

_FC, _FC_SIGNALS, _SIGNAL_HEAD, _EMBEDDING = (
    "fc.weight",
    "fc_signals.weight",
    "signal_head.weight",
    "embed_tokens.weight",
)


def holds(names: set[str]) -> bool:
    """Whether a folder with these tensors has an EAGLE-3 draft."""
    return _FC in names


def load(
    source: TensorSource,
    written_config: dict,
    path: Path,
    dtype: str = "float32",
    target_embedding=None,
    target_head=None,
    place: Place = on_device,
    layer_ids: str | None = None,
) -> DraftBundle:
    """An EAGLE-3 draft from its folder, whichever of the formats it is in (see `drafts.load_draft`)."""
    if is_speculators(written_config):
        source = TensorSource(source.folder, eagle_name)
    own = _EMBEDDING in source.names() and not _is_same_table(source, target_embedding)
    layer = written_config.get("transformer_layer_config") or written_config
    names = signal_names(written_config, path)
    signals = written_config.get("signals") or _placement(source, require(layer, "hidden_size", path), len(names))
    config = read_draft_config(written_config, path, dtype, signals, own, layer_ids)
    beside = {_FC_SIGNALS, _SIGNAL_HEAD} & source.names()
    layout = layout_of(config, _FC_SIGNALS in beside)
    vocabulary = {"d2t": (config.draft_vocab_size,), "t2d": (config.vocab_size,)}
    if config.draft_vocab_size == config.vocab_size and not source.names() & set(vocabulary):
        vocabulary = {}
    source.check(shapes(layout) | vocabulary, [_EMBEDDING])
    params = read(layout, source.read, dtype, place)
    return DraftBundle(config=config, params=params, d2t=jnp.asarray(_read_vocabulary(source, config)))


def save(
    folder: str | Path,
    bundle: DraftBundle,
    dtype: str = "float32",
    form: str | None = None,
    layer_ids: str = "both",
    verifier: Verifier | None = None,
) -> None:
    """config.json, model.safetensors, and signals.specexit where the format keeps signals beside; `d2t` as offsets.

    form: one of FORMATS; only "angelslim" (the default), ours too, keeps the signals of `fc` in `fc`. With another placement
    AngelSlim itself cannot read it. layer_ids: one of LAYER_IDS. verifier: the target, which "speculators" must name.
    """
    form = form or "angelslim"
    config = draft_json(bundle.config, dtype, form, layer_ids, verifier)
    tensors = draft_tensors(bundle, dtype, apart=form != "angelslim")
    beside = {
        name: tensors.pop(name) for name in (_FC_SIGNALS, _SIGNAL_HEAD) if name in tensors and form != "angelslim"
    }
    if form == "speculators":
        tensors.setdefault(_EMBEDDING, verifier.embedding.astype(dtype))
        tensors = {_to_speculators(name): tensor for name, tensor in tensors.items()}
    write_checkpoint(folder, config, tensors, beside)


def draft_tensors(bundle: DraftBundle, dtype: str, apart: bool = False) -> dict[str, np.ndarray]:
    """The tensors of a draft under EAGLE's names; `apart`: the signals of `fc` as a tensor of their own."""
    config = bundle.config
    tensors = written(layout_of(config, apart and config.signals == "fc"), bundle.params, dtype)
    absolute = np.asarray(bundle.d2t).astype(np.int64)
    tensors["d2t"] = absolute - np.arange(config.draft_vocab_size)
    tensors["t2d"] = np.isin(np.arange(config.vocab_size), absolute)
    return tensors


def layout_of(config: DraftConfig, apart: bool = False) -> Layout:
    """The layout of a draft's tensors; `apart`: the signals of `fc` are a tensor of their own."""
    width, rows = config.hidden_size, config.signal_rows
    layout = draft_layout(config, config.fc_rows)
    if apart:
        layout["fc"] = stacked({_FC: width, _FC_SIGNALS: rows}, 3 * config.target_hidden_size)
    if config.signals == "draft":
        layout["signal_head"] = transposed(_SIGNAL_HEAD, rows, width)
    if config.own_embedding:
        layout["embed/embedding"] = as_is(_EMBEDDING, (config.vocab_size, width))
    return layout


def digested(
    folder: Path, config: DraftConfig, raws: Mapping[str, Raw]
) -> tuple[tuple[str, ...], dict[str, tuple[Raw, int, int]]]:
    """(config fields, ranges of tensors) that a draft's digest covers, the same in every format."""
    raws = {eagle_name(name): raw for name, raw in raws.items()}
    names = set(shapes(layout_of(dataclasses.replace(config, signals="none"))))
    require_tensors(folder, names, raws)
    chosen = {name: (raws[name], 0, raws[name].size) for name in names}
    fc, width = raws[_FC], config.hidden_size
    rows = fc.shape[1]
    chosen[_FC] = (fc, 0, width * rows)
    if config.signals == "fc":
        beside = raws.get(_FC_SIGNALS)
        chosen[_FC_SIGNALS] = (fc, width * rows, fc.size) if beside is None else (beside, 0, beside.size)
    if config.signals == "draft":
        chosen[_SIGNAL_HEAD] = (raws[_SIGNAL_HEAD], 0, config.signal_rows * width)
    if "d2t" in raws:
        chosen["d2t"] = (raws["d2t"], 0, config.draft_vocab_size)
    return ("norm_before_residual",), chosen


def eagle_name(name: str) -> str:
    """EAGLE's name of a tensor that speculators calls otherwise."""
    return name.replace("layers.0.", "midlayer.", 1) if name.startswith("layers.0.") else name


def _to_speculators(name: str) -> str:
    return name.replace("midlayer.", "layers.0.", 1) if name.startswith("midlayer.") else name


def _placement(source: TensorSource, width: int, rows: int) -> str:
    """Where a file that does not say so keeps its signals, `rows` of them."""
    names = source.names()
    if _SIGNAL_HEAD in names:
        return "draft"
    fused = _FC in names and source.shape(_FC)[0] == width + rows
    return "fc" if fused or _FC_SIGNALS in names else "none"


def _read_vocabulary(source: TensorSource, config: DraftConfig) -> np.ndarray:
    """Absolute target ids int32 [W] of the draft's vocabulary, checked against the mask the file keeps beside them."""
    own = np.arange(config.draft_vocab_size)
    if "d2t" not in source.names():
        return own.astype(np.int32)
    absolute = own + source.read("d2t")
    tokens, counts = np.unique(absolute, return_counts=True)
    if counts.max() > 1:
        token = tokens[counts.argmax()]
        first, second, *_ = np.flatnonzero(absolute == token)
        raise ValueError(
            f"{source.folder}: draft ids {first} and {second} both stand for token {token} in d2t; each draft id needs a "
            "token of its own."
        )
    in_range = absolute.min() >= 0 and absolute.max() < config.vocab_size
    if not in_range or not np.array_equal(np.isin(np.arange(config.vocab_size), absolute), source.read("t2d")):
        raise ValueError(f"{source.folder}: d2t must hold offsets (target id - draft id) to the tokens marked in t2d.")
    return absolute.astype(np.int32)


def _is_same_table(source: TensorSource, target_embedding) -> bool:
    """Whether the file's embedding table is the target's, up to how either was rounded."""
    if target_embedding is None or tuple(target_embedding.shape) != source.shape(_EMBEDDING):
        return False
    table = source.read(_EMBEDDING).astype(np.float32)
    return np.allclose(np.asarray(target_embedding).astype(np.float32), table, rtol=1e-2, atol=1e-4)
