"""metrics.jsonl: one line per logged step; a resumed run drops the lines after the step from which it resumes."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specexit_jax.parallel.distributed import is_first


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file. A torn last line (killed while writing) is dropped; any other bad line is an error."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is not JSON ({error}); mend or delete the file") from error
    return records


class MetricsWriter:
    """Appends {"step": n, ...} lines to `path`; starting at `step` first drops records of later steps.

    If TensorBoard is installed, numbers are also written for it, in the folder `tensorboard` beside the file. Only a
    run's first process writes.
    """

    def __init__(self, path: Path, step: int = 0):
        self.path = Path(path)
        self._board = None
        if not is_first():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [r for r in read_metrics(self.path) if r.get("step", 0) <= step] if step and self.path.exists() else []
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        os.replace(temporary, self.path)
        self._board = open_board(self.path.parent / "tensorboard")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        if not is_first():
            return
        record = {key: value if isinstance(value, str) else float(value) for key, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | record) + "\n")
        if self._board:
            for name, value in record.items():
                if not isinstance(value, str):
                    self._board.add_scalar(name, value, step)
            self._board.flush()

    def close(self) -> None:
        if self._board:
            self._board.close()


def open_board(folder: Path) -> Any:
    """A writer of TensorBoard's event files, or None where the package `tensorboard` is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from tensorboard.summary import Writer  # slow to import, and optional

    return Writer(str(folder))
