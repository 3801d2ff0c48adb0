"""Drafts of every kind, in and out of folders: each kind's own module does the work (`models.draft.KINDS` names it).

Such a module has FORMATS, those of them that need the target (WITH_TARGET), the one that is EXPORTED by default, and four
functions: `holds` (a folder's tensors, by name), `load`, `save`, and `digested`, what a draft's digest covers.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from specexit_jax.models.checkpoints.hf_draft_config import Verifier
from specexit_jax.models.checkpoints.hf_layout import Place, on_device
from specexit_jax.models.checkpoints.hf_tensors import TensorSource, read_json
from specexit_jax.models.checkpoints.raw_tensors import Raw
from specexit_jax.models.config import DraftConfig
from specexit_jax.models.draft import KINDS
from specexit_jax.models.draft_layer import DraftBundle


def files_of(kind: str) -> ModuleType:
    """The module that reads and writes folders of this kind."""
    return importlib.import_module(f"{__package__}.{KINDS[kind].files}")


def in_checkpoint(folder: str | Path) -> bool:
    """Whether a target's folder holds a draft among its tensors."""
    names = TensorSource(folder).names()
    return any(files_of(kind).holds(names) for kind in KINDS)


FORMATS = tuple(form for kind in reversed(KINDS) for form in files_of(kind).FORMATS)
WITH_TARGET = tuple(form for kind in KINDS for form in files_of(kind).WITH_TARGET)


def load_draft(
    folder: str | Path,
    dtype: str = "float32",
    target_embedding=None,
    place: Place = on_device,
    layer_ids: str | None = None,
    target_head: Callable[[], np.ndarray] | None = None,
) -> DraftBundle:
    """A draft from its folder, whichever kind it is of and format it is in.

    A table in the file is dropped where it is the target's (`target_embedding` [V, D], `target_head()` [V, D]) and kept as the
    draft's own where it is not. layer_ids: what an EAGLE-3 file's layer ids count, "inputs" or "outputs", where it is silent.
    Raises ValueError or FileNotFoundError naming every unknown, missing and misshapen tensor.
    """
    folder = Path(folder)
    path = folder / "config.json"
    config, source = read_json(path), TensorSource(folder)
    *others, last = map(files_of, KINDS)  # the last one says what is missing in a folder that none holds
    files = next((each for each in others if each.holds(source.names())), last)
    return files.load(source, config, path, dtype, target_embedding, target_head, place, layer_ids)


def save_draft(
    folder: str | Path,
    bundle: DraftBundle,
    dtype: str = "float32",
    form: str | None = None,
    layer_ids: str = "both",
    verifier: Verifier | None = None,
) -> None:
    """Writes a draft's folder: config.json, model.safetensors, and signals.specexit where the format keeps signals beside.

    form: one of the kind's FORMATS; None: its own. layer_ids: of EAGLE-3's, one of LAYER_IDS. verifier: the target, for formats
    that name it or hold its tables.
    """
    files_of(bundle.config.kind).save(folder, bundle, dtype, form, layer_ids, verifier)


def digested(
    folder: Path, config: DraftConfig, raws: Mapping[str, Raw]
) -> tuple[tuple[str, ...], dict[str, tuple[Raw, int, int]]]:
    """(config fields, ranges of tensors by name) that a draft's digest covers beside what all kinds have."""
    return files_of(config.kind).digested(folder, config, raws)
