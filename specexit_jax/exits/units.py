"""Problems as the units of statistics: the problem, sample and task of each trace, and sums and means over a problem's traces."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int


def problem_of(row: Mapping) -> str:
    """The problem of a row of traces.jsonl: its `problem`, or else its id without the suffix "/sample-N"."""
    if problem := row.get("problem"):
        return problem
    stem, mark, sample = row["id"].rpartition("/sample-")
    return stem if mark and sample.isdecimal() else row["id"]


def codes_of(names: Sequence[Hashable]) -> Int[np.ndarray, " N"]:
    """Numbers for names: equal names get equal numbers, from 0 in the order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int64, len(names))


def sums_of(values: np.ndarray, codes: Int[np.ndarray, " N"]) -> np.ndarray:
    """[..., P]: the sums of values [..., N] over the traces of each of P problems. codes: of all of 0 .. P - 1."""
    flat = np.asarray(values, np.float64).reshape(-1, len(codes))
    problems = int(codes.max(initial=-1)) + 1
    total = np.stack([np.bincount(codes, row, problems) for row in flat]) if len(flat) else np.zeros((0, problems))
    return total.reshape(*np.shape(values)[:-1], problems)


def means_of(values: np.ndarray, codes: Int[np.ndarray, " N"]) -> np.ndarray:
    """[..., P]: the means of values [..., N] over the traces of each of P problems. codes: of all of 0 .. P - 1."""
    return sums_of(values, codes) / np.bincount(codes)


@dataclasses.dataclass(frozen=True)
class Units:
    """Of N traces: the number of the problem (`codes_of`), the number of the sample within it, the task."""

    problem: Int[np.ndarray, " N"]
    sample: Int[np.ndarray, " N"]
    task: np.ndarray

    @classmethod
    def of(cls, problems: Sequence[str], samples: Sequence[int], tasks: Sequence[str]) -> "Units":
        """From names. Problems of different tasks are different, also where their names are equal."""
        codes = codes_of(list(zip(tasks, problems, strict=True)))
        return cls(codes, np.asarray(samples, np.int64), np.asarray(tasks, object))

    @classmethod
    def single(cls, traces: int) -> "Units":
        """Units where each trace is a problem of its own."""
        return cls(np.arange(traces), np.zeros(traces, np.int64), np.full(traces, "", object))

    def take(self, rows: Bool[np.ndarray, " N"]) -> "Units":
        """The units of some traces, with problems numbered anew."""
        return Units(codes_of(self.problem[rows].tolist()), self.sample[rows], self.task[rows])

    @cached_property
    def problems(self) -> int:
        """The number of problems, P."""
        return int(self.problem.max(initial=-1)) + 1

    @property
    def one_each(self) -> bool:
        """Whether every problem has exactly one trace."""
        return self.problems == len(self.problem)

    @cached_property
    def first(self) -> Int[np.ndarray, " P"]:
        """For each problem, the index of the trace with the lowest sample number. It does not depend on the order of traces."""
        order = np.lexsort((self.sample, self.problem))
        return order[np.searchsorted(self.problem[order], np.arange(self.problems))]

    @cached_property
    def shares(self) -> Float[np.ndarray, " N"]:
        """Weights with which a mean over traces is the mean over problems of each problem's mean."""
        return 1.0 / (self.problems * np.bincount(self.problem)[self.problem])

    def tasks(self) -> dict[str, int]:
        """The number of problems of each task, by name; empty where tasks are not known."""
        names, counts = np.unique(self.task[self.first].astype(str), return_counts=True)
        return {name: int(count) for name, count in zip(names.tolist(), counts, strict=True) if name}
