"""A plan as text, and as JSON."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from specexit_jax.sizing.plan import GIB, Assumed, Machine, Stage, Work, meshes
from specexit_jax.sizing.plan_stages import plan

_COLUMNS = ("stage", "GiB a device", "of it", "GiB a host", "GB on disk", "hours", "limited by")


def table(stages: Sequence[Stage], work: Work, assumed: Assumed, machine: Machine) -> str:
    """The stages in lines, what does not fit, and what was assumed."""
    rows = [_COLUMNS, *(_row(stage) for stage in stages)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    hours = sum(stage.hours for stage in stages)
    decoding, training = (" x ".join(map(str, mesh)) for mesh in meshes(work, machine))
    room = machine.room / GIB
    told = [
        f"{machine.devices} x {machine.device.kind}, {machine.processes} processes, {machine.hosts} hosts; mesh (data x fsdp x "
        f"tensor) of a process {decoding}, of training {training}; {room:.1f} GiB of a device are for arrays.",
        *lines,
        f"all: {hours:,.1f} hours, {hours * machine.devices:,.0f} device hours",
    ]
    for stage in stages:
        if stage.wrong:
            told.append(f"{stage.name} does not fit: {stage.wrong}. One of: {'; '.join(stage.changes)}.")
    return "\n".join([*told, _assumed(work, assumed, machine)])


def fits(stages: Sequence[Stage]) -> bool:
    """Whether every stage does."""
    return not any(stage.wrong for stage in stages)


def as_json(stages: Sequence[Stage], machine: Machine) -> dict[str, Any]:
    """The stages by name; bytes, and hours."""
    found = {
        stage.name: dataclasses.asdict(stage) | {"device_bytes": stage.whole, "fits": not stage.wrong}
        for stage in stages
    }
    return {"stages": found, "room": machine.room, "fits": fits(stages)}


def by_devices(work: Work, assumed: Assumed, machine_of: Callable[[int], Machine], counts: Sequence[int]) -> str:
    """A table in Markdown for so many devices: GiB a device of every stage, a dash where that does not fit, and hours in all
    where everything does."""
    lines = []
    for count in counts:
        machine = machine_of(count)
        stages = plan(work, assumed, machine)
        cells = [f"{stage.whole / GIB:.1f}" if not stage.wrong else "–" for stage in stages]
        hours = f"{sum(stage.hours for stage in stages):.0f}" if fits(stages) else "–"
        lines.append([str(count), *cells, hours])
    head = ["devices", *(stage.name for stage in stages), "hours"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


def _row(stage: Stage) -> tuple[str, ...]:
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in stage.device.items())
    mark = " (!)" if stage.wrong else ""
    size = f"{stage.whole / GIB:.1f}{mark}"
    return (
        stage.name,
        size,
        parts,
        f"{stage.host / GIB:.0f}",
        f"{stage.disk / 1e9:.1f}",
        f"{stage.hours:.1f}",
        stage.limit,
    )


def _assumed(work: Work, assumed: Assumed, machine: Machine) -> str:
    forced = ", ".join(f"{split} {count:g}" for split, count in work.forced.items())
    told = [
        f"thinking of {assumed.thinking:,} tokens and answers of {assumed.answer}",
        f"answers forced at so many boundaries of a trace: {forced}",
        f"{assumed.accept_length:g} tokens a step of the trained draft",
        f"exits keep {assumed.kept:.0%} of the thinking",
        f"{assumed.pair_seconds:g} s a graded pair, in {machine.graders} processes beside each",
        f"weights at {machine.of_bandwidth:.0%} of the bandwidth, caches at {machine.of_caches:.0%}",
        f"products at {machine.of_peak:.0%} of the peak",
    ]
    last = "Memory is of rows as long as they may become. Not counted: compilation, replays and fits on the host."
    return f"Assumed: {'; '.join(told)}. {last}"
