"""How many rows a stage decodes at a time, where the config leaves that to the memory."""

from collections.abc import Callable

from specexit_jax.engine.budget import SHARE
from specexit_jax.engine.levels import levels_of
from specexit_jax.engine.placement import Auto
from specexit_jax.sizing.plan import GIB, Machine
from specexit_jax.sizing.plan_memory import Mesh

# Bytes on a device, by what they are, of so many rows over a mesh; the third number is their capacity, or their length.
Memory = Callable[[int, Mesh, int], dict[str, int]]


def unsplit(rows: int, mesh: Mesh) -> str:
    """What is wrong where the rows of a batch are not shared evenly by the devices; "" where they are."""
    parts = mesh[0] * mesh[1]
    return f"{rows} rows do not split over data x fsdp = {parts} devices" if rows % parts else ""


def settled(asked: int | Auto, machine: Machine, mesh: Mesh, capacity: int, memory: Memory) -> tuple[int, str]:
    """The rows, and what is wrong with them ("": nothing). Of `Auto`: those that are decoded when all have `capacity` positions,
    beside which one more is read."""
    if not isinstance(asked, Auto):
        return asked, unsplit(asked, mesh)
    parts = mesh[0] * mesh[1]

    def fits(rows: int, live: int) -> bool:
        needs = memory(rows + parts, mesh, live)
        return (
            sum(needs.values()) <= SHARE * machine.room
            if asked.cache_bytes is None
            else needs["caches"] <= asked.cache_bytes
        )

    if levels := levels_of((capacity,), max(asked.most // parts, 1) * parts, parts, fits):
        return levels[-1].rows, ""
    room = SHARE * machine.room / GIB if asked.cache_bytes is None else asked.cache_bytes / GIB
    return parts, f"the least number of rows of {capacity} positions, and one more, do not fit {room:.1f} GiB a device"
