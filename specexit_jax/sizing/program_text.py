"""What an iteration of a compiled loop launches, moves and writes, read from the text of the program.

The text is that of `jax.stages.Compiled.as_text()` for a GPU: after scheduling, every fusion, library call, copy or sort of a
computation is one kernel. A branch that a run may not take is counted as one launch, without what is in it.
"""

import collections
import dataclasses
import math
import re
from typing import NamedTuple

_BITS = {"pred": 8, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16, "s32": 32, "u32": 32, "f32": 32}
_BITS |= {"s64": 64, "u64": 64, "f64": 64}
_SHAPE = re.compile(r"\b(" + "|".join(_BITS) + r")\[([\d,]*)\]")
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_LAUNCHES = {"fusion", "custom-call", "copy", "copy-start", "dot", "convolution", "sort", "reduce", "transpose", "pad"}
_LAUNCHES |= {
    "concatenate",
    "slice",
    "dynamic-slice",
    "dynamic-update-slice",
    "gather",
    "scatter",
    "conditional",
    "while",
}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_PICKING = ("gather", "dynamic-slice", "slice")  # read only what they return
_PLACING = ("scatter", "dynamic-update-slice")  # write into a buffer that is there
LARGE = 1 << 20  # bytes from which a result is told


@dataclasses.dataclass(frozen=True)
class Written:
    """Results of one kind and shape: how many, and the bytes of all. in_place: written into a buffer that is there."""

    operation: str
    shape: str
    number: int
    bytes: int
    in_place: bool


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One iteration of the loop with the longest body.

    kernels: launches by kind. moved: the bytes that they read and write; each operand counts once a launch, and of arrays that
    are written in place or picked from only the new or picked part. written: results of at least LARGE bytes, the largest
    first. collectives: by kind.
    """

    kernels: dict[str, int]
    moved: int
    written: tuple[Written, ...]
    collectives: dict[str, int]

    @property
    def launches(self) -> int:
        return sum(self.kernels.values())


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """The names of the operands; those of called computations follow them and are left out."""
        return re.findall(r"%([\w.\-]+)", self.rest.split("), ")[0])


def iteration_of(text: str) -> Iteration:
    """The iteration of the loop with the longest body. Raises ValueError where the program has no loop."""
    computations = _computations(text)
    bodies = [name for name in re.findall(r"body=%?([\w.\-]+)", text) if name in computations]
    if not bodies:
        raise ValueError("This program has no loop.")
    lines = list(_flat(max(bodies, key=lambda name: len(computations[name])), computations))
    shapes = {each.name: each.shape for each in lines}
    kernels, collectives, written, moved = collections.Counter(), collections.Counter(), collections.Counter(), 0
    for each in lines:
        kind = re.sub(r"[.\d]+(clone)?$", "", each.name)
        collective = next((name for name in _COLLECTIVES if each.operation.startswith(name)), None)
        if collective and not each.operation.endswith("-done"):
            collectives[collective] += 1
        if each.operation not in _LAUNCHES:
            continue
        kernels[kind] += 1
        read, placed = _traffic(each, shapes, computations)
        if each.operation in ("conditional", "while"):  # what they carry, their bodies write, or nobody
            continue
        written[kind, each.shape, placed] += 1
        moved += read + (0 if placed else bytes_of(each.shape))
    large = [
        Written(kind, shape, number, number * bytes_of(shape), placed)
        for (kind, shape, placed), number in written.items()
        if bytes_of(shape) >= LARGE
    ]
    large.sort(key=lambda each: -each.bytes)
    return Iteration(dict(kernels.most_common()), moved, tuple(large), dict(collectives))


def collectives_of(text: str) -> dict[str, int]:
    """The collectives of a whole program, by kind."""
    found = re.findall(r" (" + "|".join(_COLLECTIVES) + r")(?:-start)?\(", text)
    return dict(collections.Counter(found).most_common())


def bytes_of(shape: str) -> int:
    """The bytes of a shape in the program's text; of a tuple, of its parts together."""
    return sum(
        _BITS[kind] // 8 * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in _SHAPE.findall(shape)
    )


def _traffic(
    each: _Instruction, shapes: dict[str, str], computations: dict[str, list[_Instruction]]
) -> tuple[int, bool]:
    """(the bytes that a launch reads, and those that it writes in place; whether its result is written in place)."""
    if shared := re.findall(r"\{(\d+)\}: \((\d+), \{\}\)", each.rest.partition("output_to_operand_aliasing=")[2]):
        return _shared_traffic(
            each, shapes, {int(result) for result, _ in shared}, {int(place) for _, place in shared}
        ), True
    called = re.search(r"calls=%?([\w.\-]+)", each.rest)
    inside = computations.get(called[1]) if called else None
    if inside is None:
        inside = [_Instruction(name, shapes.get(name, ""), "parameter", ")") for name in set(each.operands)] + [each]
    sizes = {one.name: bytes_of(one.shape) for one in inside}
    total, placed = 0, False
    for one in inside:
        if one.operation != "parameter":
            continue
        uses = _uses(one.name, inside)
        if uses and all(use.operation in _PLACING and first for use, first in uses):
            placed = True
            total += sum(max([sizes.get(name, 0) for name in use.operands[1:]]) for use, _ in uses)
        elif uses and all(use.operation in _PICKING and first for use, first in uses):
            total += sum(bytes_of(use.shape) for use, _ in uses)
        else:
            total += sizes[one.name]
    return total, placed


def _shared_traffic(each: _Instruction, shapes: dict[str, str], results: set[int], operands: set[int]) -> int:
    """The bytes that a kernel moves which writes some of its operands in place: into each at most its largest other operand."""
    read = [bytes_of(shapes.get(name, "")) for place, name in enumerate(each.operands) if place not in operands]
    fresh = [whole[0] for place, whole in enumerate(_SHAPE.finditer(each.shape)) if place not in results]
    return sum(read) + sum(map(bytes_of, fresh)) + len(results) * max(read)


def _uses(name: str, inside: list[_Instruction]) -> list[tuple[_Instruction, bool]]:
    """(instruction, whether as its first operand) of every use of a value, seen through bitcasts."""
    found = []
    for each in inside:
        if name in each.operands:
            if each.operation == "bitcast":
                found += _uses(each.name, inside)
            else:
                found.append((each, each.operands[0] == name))
    return found


def _computations(text: str) -> dict[str, list[_Instruction]]:
    """The instructions of every computation by its name."""
    found = re.finditer(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.S | re.M)
    return {
        each[1]: [_Instruction(*line.groups()) for line in map(_LINE.match, each[2].split("\n")) if line]
        for each in found
    }


def _flat(name: str, computations: dict[str, list[_Instruction]]):
    """The instructions of a computation, those of a called one in place of the call."""
    for each in computations[name]:
        called = re.search(r"to_apply=%?([\w.\-]+)", each.rest) if each.operation == "call" else None
        if called and called[1] in computations:
            yield from _flat(called[1], computations)
        yield each
