"""What to change where a stage does not fit: of every setting the largest value with which it does, found by planning again."""

import dataclasses
from collections.abc import Callable, Iterator

from specexit_jax.engine.specs import buffer_for
from specexit_jax.sizing.plan import Assumed, Machine, Stage, Work, longest, meshes, processes_of

Make = Callable[[Work, Assumed, Machine], Stage]
Fits = Callable[[Work, Machine], bool]
PROMPT = 1024  # tokens that a shorter buffer leaves to the prompt, as the published configs do
# The number of rows of a stage: its field of Work, which is also its place in the config.
_ROWS = {
    "rollout": {"rollout_rows": "rollout.batch_size"},
    "annotate": {"annotate_rows": "annotate.batch_size"},
    "rollout test": {"rollout_rows": "rollout.batch_size"},
    "evaluate": {"evaluate_rows": "evaluate.batch_size", "annotate_rows": "annotate.batch_size"},
}
_BRANCHES = ("annotate", "evaluate")
_MOST = 1024  # rows that are tried where the config names no number


def changes_of(name: str, make: Make, work: Work, assumed: Assumed, machine: Machine) -> tuple[str, ...]:
    """Settings with each of which the stage that `make` plans fits, in the flags' words. name: the stage's."""

    def fits(work: Work, machine: Machine) -> bool:
        try:
            return not make(work, assumed, machine).wrong
        except ValueError:  # a mesh that does not cover these devices
            return False

    if name == "train":
        found = (*_fewer_train_rows(work, machine, fits), *_shorter_train_rows(work, machine, fits))
        found = (*found, *_more_devices(work, machine, fits))
    else:
        found = (*_fewer_rows(name, work, machine, fits), *_tensor(work, machine, fits))
        found = (*found, *_shorter(work, assumed, machine, fits)) if name in _ROWS else found
    return tuple(found) or ("a device with more memory",)


def _fewer_rows(name: str, work: Work, machine: Machine, fits: Fits) -> Iterator[str]:
    """Fewer rows of one kind (decoded, or annotated). Where no one kind is enough: as few as can be of the one, and fewer of the
    other or fewer branches."""
    mesh, _ = meshes(work, machine)
    parts, rows = mesh[0] * mesh[1], _ROWS.get(name, {})

    def most(field: str, step: int, **least: int) -> int:
        now = getattr(work, field)
        count = -(-now // step) if isinstance(now, int) else -(-_MOST // step)
        return step * _most(count, lambda n: fits(dataclasses.replace(work, **least, **{field: n * step}), machine))

    found = [f"--config.{key}={count}" for field, key in rows.items() if (count := most(field, parts))]
    last = dict(list(rows.items())[1:]) | ({"branches": "annotate.branches"} if name in _BRANCHES else {})
    for field, key in last.items():
        least = {other: parts for other in rows if other != field}
        if not found and (count := most(field, 1 if field == "branches" else parts, **least)):
            found = ["".join(f"--config.{rows[other]}={parts} " for other in least) + f"--config.{key}={count}"]
    return iter(found)


def _tensor(work: Work, machine: Machine, fits: Fits) -> Iterator[str]:
    """Each device a part of the heads."""
    mesh, _ = meshes(work, machine)
    for tensor in range(mesh[2] + 1, machine.devices + 1):
        if machine.devices % tensor or work.target.num_kv_heads % tensor:
            continue
        more = dataclasses.replace(machine, processes=machine.devices // tensor)
        if fits(dataclasses.replace(work, mesh=(1, 1, tensor)), more):
            others = _ones("mesh", work.mesh, ("data", "fsdp"))
            yield f"{others}--config.mesh.tensor={tensor} with {tensor} devices a process"
            return


def _shorter(work: Work, assumed: Assumed, machine: Machine, fits: Fits) -> Iterator[str]:
    """Rows whose buffer is half as long, or a quarter."""
    buffer = min(buffer_for(assumed.prompt, work.max_new_tokens), work.target.max_position)
    half = 1 << ((buffer - 1).bit_length() - 1)
    for length in (half, half // 2):
        tokens = length - max(PROMPT, assumed.prompt)
        shorter = dataclasses.replace(work, max_new_tokens=tokens)
        if tokens >= assumed.written and longest(shorter, assumed) < longest(work, assumed) and fits(shorter, machine):
            yield f"--config.rollout.max_new_tokens={tokens}"
            return


def _fewer_train_rows(work: Work, machine: Machine, fits: Fits) -> Iterator[str]:
    _, mesh = meshes(work, machine)
    parts = mesh[0] * mesh[1]
    count = -(-work.train_rows // parts)
    if each := _most(count, lambda each: fits(dataclasses.replace(work, train_rows=each * parts), machine)):
        yield f"--config.train.batch_size={each * parts}"


def _shorter_train_rows(work: Work, machine: Machine, fits: Fits) -> Iterator[str]:
    length = work.row_length // 2
    while length >= 1024:
        if fits(dataclasses.replace(work, row_length=length), machine):
            yield f"--config.train.row_length={length}"
            return
        length //= 2


def _more_devices(work: Work, machine: Machine, fits: Fits) -> Iterator[str]:
    """The weights over more devices."""
    _, mesh = meshes(work, machine)
    parts, each = mesh[0] * mesh[1], machine.devices // machine.processes
    for devices in range(parts + 1, 32 * parts + 1):
        processes = processes_of(machine.device, devices) if devices % each else devices // each
        if devices % processes or work.train_rows % devices:
            continue
        more = dataclasses.replace(machine, devices=devices, processes=processes)
        if fits(dataclasses.replace(work, train_mesh=(1, devices, 1)), more):
            others = _ones("train.mesh", work.train_mesh, ("data", "tensor"))
            yield f"{others}--config.train.mesh.fsdp={devices} on {devices} devices"
            return


def _ones(key: str, sizes: tuple[int, int, int], axes: tuple[str, ...]) -> str:
    """The flags that make these axes 1 where the config says otherwise."""
    given = dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    return "".join(f"--config.{key}.{axis}=1 " for axis in axes if given[axis] != 1)


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `count` that fits; 0 where none does."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
