"""The rows of a data set: on the hub, in a file, or in a local folder that holds data sets in the hub's schemas."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FORMATS = {".jsonl": "json", ".json": "json", ".jsonl.gz": "json", ".parquet": "parquet", ".csv": "csv"}


def format_of(name: str) -> str | None:
    """What loads a file of this name; None where it is not a file's."""
    return next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), None)


def stream(name: str, config: str, split: str) -> Iterator[dict[str, Any]]:
    """A data set's rows, read as they are asked for; a file holds them whatever the split is called.

    Raises FileNotFoundError or ValueError, one sentence.
    """
    kind = format_of(name)
    if kind and not Path(name).is_file():
        raise FileNotFoundError(f"{name} is not a file: give source.name a data set's name on the hub, or a file.")
    import datasets  # seconds of imports, which the world does not need

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what is wrong is said once, below
    try:
        if kind:
            yield from datasets.load_dataset(kind, data_files={split: name}, split=split, streaming=True)
        else:
            yield from datasets.load_dataset(name, config or None, split=split, streaming=True)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"The data set {name!r}, split {split!r}, cannot be read: {why}") from error


def local(folder: str, names: Sequence[str], config: str, splits: Sequence[str]) -> tuple[str, str]:
    """(name, config) under which `stream` reads one split of a data set from `folder`.

    folder: a file; a copy of the data set as the hub has it, called by one of `names`; or a folder of either: files
    NAME_SPLIT.jsonl (or another of FORMATS), NAME.jsonl, or a copy NAME. Raises FileNotFoundError, one sentence.
    """
    place = Path(folder).expanduser()
    if place.is_file():
        return str(place), ""
    stems = [*(f"{name}_{split}" for name in names for split in splits), *names]
    for stem in stems:
        for suffix in FORMATS:
            if (file := place / f"{stem}{suffix}").is_file():
                return str(file), ""
    for copy in (*(place / name for name in names), *([place] if place.name in names else [])):
        if copy.is_dir():
            if config and not (copy / "README.md").is_file() and (copy / config).is_dir():
                return str(copy / config), ""  # without the card that tells the configs apart
            return str(copy), config
    raise FileNotFoundError(
        f"{folder} holds no {names[0]}: put {names[0]}_{splits[0]}.jsonl there (or .parquet, .csv), or a copy of the data set "
        f"as a folder called {names[-1]}."
    )
