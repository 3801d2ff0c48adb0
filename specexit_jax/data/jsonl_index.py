"""Random access to the lines of JSON-lines files, which stay on disk."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np


class JsonlIndex:
    """Object i of the files, in order. Skips blank lines and a torn last line that a killed process left.

    Raises FileNotFoundError; a line that is not a JSON object raises ValueError with its file and number when it is read.
    """

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = [Path(path) for path in paths]
        places = []  # (file, first byte, number of the line)
        for number, path in enumerate(self.paths):
            if not path.is_file():
                raise FileNotFoundError(f"{path} does not exist: run the stage that writes it first")
            with path.open("rb") as lines:
                start = 0
                for line, text in enumerate(lines, start=1):
                    if text.strip() and text.endswith(b"\n"):
                        places.append((number, start, line))
                    start += len(text)
        self._places = np.array(places, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict:
        file, start, _ = self._places[index]
        with self.paths[file].open("rb") as lines:  # a new file handle per read: threads must not share a position
            lines.seek(start)
            return self._parse(index, lines.readline())

    def __iter__(self) -> Iterator[dict]:
        """All objects; opens each file once. Rows appended after the index was made are left out."""
        for file, path in enumerate(self.paths):
            with path.open("rb") as lines:
                for index in np.flatnonzero(self._places[:, 0] == file):
                    lines.seek(self._places[index, 1])
                    yield self._parse(index, lines.readline())

    def _parse(self, index: int, text: bytes) -> dict:
        file, _, line = self._places[index]
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ValueError(
                f"{self.paths[file]}: line {line} is not valid JSON ({error}); mend or remove it"
            ) from error
        if not isinstance(value, dict):
            raise ValueError(f"{self.paths[file]}: line {line} is not a JSON object; mend or remove it")
        return value
