"""What to change where a stage does not fit: the largest setting that does, found by trying."""

from collections.abc import Callable

from specexit_jax.sizing.plan import Assumed, Machine, Work, longest, meshes
from specexit_jax.sizing.plan_memory import Mesh

# Bytes on a device, by what they are, of so many rows over a mesh; the third number is their capacity, or their length.
Memory = Callable[[int, Mesh, int], dict[str, int]]


def unsplit(rows: int, mesh: Mesh) -> str:
    """What is wrong where the rows of a batch are not shared evenly by the devices; "" where they are."""
    parts = mesh[0] * mesh[1]
    return f"{rows} rows do not split over data x fsdp = {parts} devices" if rows % parts else ""


def of_rows(
    work: Work, assumed: Assumed, machine: Machine, key: str, rows: int, memory: Memory
) -> Callable[[], tuple[str, ...]]:
    """For caches of rows: fewer rows, rows of half the buffer, or more devices a process."""

    def changes() -> tuple[str, ...]:
        mesh, _ = meshes(work, machine)
        capacity = longest(work, assumed)
        found, parts = [], mesh[0] * mesh[1]
        if most := _most(-(-rows // parts), lambda each: _fits(machine, memory(each * parts, mesh, capacity))):
            found.append(f"--config.{key}={most * parts}")
        for tensor in (
            size for size in range(mesh[2] + 1, machine.devices + 1) if work.target.num_kv_heads % size == 0
        ):
            if machine.devices % tensor == 0 and _fits(machine, memory(rows, (1, 1, tensor), capacity)):
                found.append(f"--config.mesh.tensor={tensor} with {tensor} devices a process")
                break
        shorter = 1 << ((capacity - 1).bit_length() - 1)
        if _fits(machine, memory(rows, mesh, shorter)):
            found.append(f"--config.rollout.max_new_tokens={shorter - 1024}")
        return tuple(found) or ("a device with more memory",)

    return changes


def of_training(work: Work, machine: Machine, memory: Memory) -> Callable[[], tuple[str, ...]]:
    """For rows of a step: fewer of them, shorter ones, or weights over more devices."""

    def changes() -> tuple[str, ...]:
        _, mesh = meshes(work, machine)
        parts, found = mesh[0] * mesh[1], []
        each = _most(
            -(-work.train_rows // parts), lambda each: _fits(machine, memory(each * parts, mesh, work.row_length))
        )
        if each:
            found.append(f"--config.train.batch_size={each * parts}")
        if work.train_rows % parts:
            return tuple(found)
        length = work.row_length
        while length > 1024 and not _fits(machine, memory(work.train_rows, mesh, length)):
            length //= 2
        if _fits(machine, memory(work.train_rows, mesh, length)):
            found.append(f"--config.train.row_length={length}")
        for devices in (parts * 2**power for power in range(1, 6)):
            if work.train_rows % devices == 0 and _fits(
                machine, memory(work.train_rows, (1, devices, 1), work.row_length)
            ):
                found.append(f"--config.train.mesh.fsdp={devices} on {devices} devices")
                break
        return tuple(found) or ("a device with more memory",)

    return changes


def _fits(machine: Machine, device: dict[str, int]) -> bool:
    return sum(device.values()) <= machine.room


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `count` that fits; 0 where none does."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
