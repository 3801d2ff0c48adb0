"""The rows of a data set: on the hub, in a file, or in a local folder that holds data sets in the hub's schemas."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from specexit_jax.data.readers import rows_of

FORMATS = {
    ".jsonl": "json", ".json": "json", ".jsonl.gz": "json.gz", ".json.gz": "json.gz", ".parquet": "parquet", ".csv": "csv",
    ".csv.gz": "csv.gz", ".tsv": "tsv", ".tsv.gz": "tsv.gz",
}  # fmt: skip


def format_of(name: str) -> str | None:
    """The format of a file of this name, for `readers.rows_of`; None if the name has no known ending."""
    return next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), None)


def stream(name: str, config: str, split: str) -> Iterator[dict[str, Any]]:
    """A data set's rows, read lazily; for a file the split's name is ignored.

    Raises FileNotFoundError or ValueError, one sentence.
    """
    if format_of(name):
        if not Path(name).is_file():
            raise FileNotFoundError(f"{name} is not a file: give source.name a data set's name on the hub, or a file.")
        yield from _told(name, _rows(name))
    else:
        yield from _told(f"The data set {name!r}, split {split!r},", _published(name, config, split))


def _told(what: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows; an error while reading becomes one sentence."""
    try:
        yield from rows
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{what} cannot be read: {why}") from error


def _published(name: str, config: str, split: str) -> Iterator[dict[str, Any]]:
    """A data set of the hub, or a copy of one. Its CSV and JSON files are read by `readers`, because `datasets` would
    infer types of cells."""
    import datasets  # imported here: it takes seconds, and the reasoning world does not need it

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the error is reported once
    if (Path(name) / "state.json").is_file():
        raise ValueError("it was left by save_to_disk, whose files are not a data set of the hub: save it as Parquet")
    builder = datasets.load_dataset_builder(name, config or None)
    files = [str(file) for file in (builder.config.data_files or {}).get(split, ())]
    usual = not getattr(builder.config, "field", None) and getattr(builder.config, "sep", ",") == ","
    if files and usual and all(format_of(file) for file in files):
        for file in files:
            yield from _rows(file)
    else:
        yield from builder.as_streaming_dataset(split=split)


def _rows(name: str) -> Iterator[dict[str, Any]]:
    """Of a local file, or of one that fsspec opens (hf://…)."""
    if "://" in name:
        import fsspec

        with fsspec.open(name, "rb") as file:
            yield from rows_of(format_of(name), file)
        return
    with open(name, "rb") as file:
        yield from rows_of(format_of(name), file)


def local(folder: str, names: Sequence[str], config: str, splits: Sequence[str]) -> tuple[str, str]:
    """(name, config) under which `stream` reads one split of a data set from `folder`.

    folder: a file; a copy of the hub's data set under one of `names`; or a folder that holds either: files
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
                return str(copy / config), ""  # without the card that describes its configs
            return str(copy), config
    raise FileNotFoundError(
        f"{folder} holds no {names[0]}: put {names[0]}_{splits[0]}.jsonl there (or .parquet, .csv), or a copy of the data set "
        f"as a folder called {names[-1]}."
    )
