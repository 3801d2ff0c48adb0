"""The stages of an experiment, each with its needs: `plan` is what launch.plan shows."""

import dataclasses
import math

from specexit_jax.sizing import plan_changes, plan_hours, plan_memory
from specexit_jax.sizing.plan import GIB, Assumed, Machine, Stage, Work, longest, meshes
from specexit_jax.sizing.plan_device import annotating_memory, decoding_memory, reading_memory, training_memory
from specexit_jax.sizing.plan_host import BOUNDARY, NUMBERS, TABLES, grading_hours, held, host_bytes, token_bytes
from specexit_jax.sizing.plan_hours import HOUR
from specexit_jax.sizing.plan_rows import settled, unsplit
from specexit_jax.training.flops import draft_step_flops


def plan(work: Work, assumed: Assumed, machine: Machine) -> list[Stage]:
    """The needs of every stage, in the order in which they run; what to change where one does not fit."""
    makes = (_rollout, _annotate, _train, _calibrate, _rollout_test, _evaluate)
    return [_with_changes(make, work, assumed, machine) for make in makes]


def _with_changes(make: plan_changes.Make, work: Work, assumed: Assumed, machine: Machine) -> Stage:
    stage = make(work, assumed, machine)
    if not stage.wrong:
        return stage
    return dataclasses.replace(stage, changes=plan_changes.changes_of(stage.name, make, work, assumed, machine))


def _rollout(work: Work, assumed: Assumed, machine: Machine) -> Stage:
    return _decoding("rollout", sum(work.traces.values()), False, work, assumed, machine)


def _rollout_test(work: Work, assumed: Assumed, machine: Machine) -> Stage:
    return _decoding("rollout test", work.tested, True, work, assumed, machine)


def _decoding(name: str, traces: int, drafts: bool, work: Work, assumed: Assumed, machine: Machine) -> Stage:
    """Traces in slots; drafts: whether the trained draft speculates."""
    mesh, _ = meshes(work, machine)
    tokens = traces * assumed.written

    def device(rows: int, mesh: plan_memory.Mesh, capacity: int) -> dict[str, int]:
        return decoding_memory(work, rows, drafts, mesh, capacity)

    rows, wrong = settled(work.rollout_rows, machine, mesh, longest(work, assumed), device)
    hours, limit = _decoding_hours(work, assumed, machine, rows, traces, tokens, drafts)
    return _stage(
        name,
        device(rows, mesh, longest(work, assumed)),
        host_bytes(work, machine, held(traces, assumed.written)),
        tokens * token_bytes(work),
        hours,
        limit,
        grading_hours(traces, assumed, machine),
        machine,
        wrong,
    )


def _annotate(work: Work, assumed: Assumed, machine: Machine) -> Stage:
    hours, limit, answers = _annotating(work, assumed, machine, work.traces)
    traces = sum(work.traces.values())
    mesh, _ = meshes(work, machine)

    def device(rows: int, mesh: plan_memory.Mesh, capacity: int) -> dict[str, int]:
        return annotating_memory(work, rows, work.branches, mesh, capacity)

    return _stage(
        "annotate",
        device(work.annotate_rows, mesh, longest(work, assumed)),
        host_bytes(work, machine, held(traces, assumed.written + answers / max(traces, 1) * assumed.answer)),
        answers * (assumed.answer * token_bytes(work) + BOUNDARY),
        hours,
        limit,
        grading_hours(2 * answers, assumed, machine),
        machine,
        unsplit(work.annotate_rows, mesh),
    )


def _annotating(work: Work, assumed: Assumed, machine: Machine, traces: dict) -> tuple[float, str, float]:
    """Hours, what limits them, and the number of forced answers of these splits."""
    mesh, _ = meshes(work, machine)
    hours, answers, limits = 0.0, 0.0, {}
    for split, count in traces.items():
        forced = work.forced[split] * work.keys
        took, limit = plan_hours.forcing_seconds(
            work.target, work.annotate_rows, work.branches, assumed.prompt + assumed.written, forced, assumed.answer,
            machine.rates, mesh,
        )  # fmt: skip
        hours += count * took / machine.processes / HOUR
        answers += count * forced
        limits[limit] = limits.get(limit, 0.0) + count * took
    return hours, max(limits, key=limits.get), answers


def _train(work: Work, assumed: Assumed, machine: Machine) -> Stage:
    _, mesh = meshes(work, machine)

    def device(rows: int, mesh: plan_memory.Mesh, row_length: int) -> dict[str, int]:
        return training_memory(work, rows, row_length, mesh)

    sizes = work.target, work.draft, work.train_rows, work.row_length, work.losses.steps
    seconds = machine.rates.seconds(0, draft_step_flops(*sizes, work.online) / math.prod(mesh)) * work.steps
    tokens = work.traces.get("draft", 0) * assumed.written
    width = work.draft.hidden_size * (3 if work.draft.signals == "fc" else 1)
    state = plan_memory.state_bytes(work.draft, work.optimizer, work.losses, learn=work.learn)
    disk = 2 * state + plan_memory.draft_bytes(work.draft)
    if not work.online:
        seconds += machine.rates.seconds(
            0, plan_hours.forward_flops(work.target, tokens, work.row_length / 2) / math.prod(mesh)
        )
        disk += tokens * 2 * (work.target.feature_size + work.target.hidden_size)
    return _stage(
        "train",
        device(work.train_rows, mesh, work.row_length),
        host_bytes(work, machine, 0) + 10 * width * work.signal_positions,  # float32, and what the solver works with
        disk,
        seconds / HOUR,
        "FLOPs",
        0.0,
        machine,
        unsplit(work.train_rows, mesh),
    )


def _calibrate(work: Work, assumed: Assumed, machine: Machine) -> Stage:
    traces = sum(work.traces.get(split, 0) for split in work.scored)
    mesh, _ = meshes(work, machine)
    tokens = traces * assumed.written
    return _stage(
        "calibrate",
        reading_memory(work, mesh),
        host_bytes(work, machine, 0) + held(traces, 0) + TABLES,  # the work of one process
        tokens * 4 * NUMBERS,
        _reading_hours(work, assumed, machine, traces),
        "FLOPs",
        0.0,
        machine,
    )


def _reading_hours(work: Work, assumed: Assumed, machine: Machine, traces: int) -> float:
    """Of one process."""
    mesh, _ = meshes(work, machine)
    length = assumed.prompt + assumed.written
    flops = plan_hours.forward_flops(work.target, traces * length, length / 2)
    return machine.rates.seconds(0, flops / math.prod(mesh)) / HOUR


def _evaluate(work: Work, assumed: Assumed, machine: Machine) -> Stage:
    """Plain rollouts and answers without thinking, labels and signals of the test split, by all; the timing by one process."""
    mesh, _ = meshes(work, machine)

    def memory(rows: int, mesh: plan_memory.Mesh, capacity: int) -> dict[str, int]:
        return decoding_memory(work, rows, True, mesh, capacity)

    rows, wrong = settled(work.evaluate_rows, machine, mesh, longest(work, assumed), memory)
    device = max(
        (
            memory(rows, mesh, longest(work, assumed)),
            annotating_memory(work, work.annotate_rows, work.branches, mesh, longest(work, assumed)),
            reading_memory(work, mesh),
        ),
        key=lambda each: sum(each.values()),
    )
    parts: list[tuple[float, str]] = []
    written = {"think": assumed.written, "nothink": assumed.answer}
    for name, tokens in written.items():
        if name in work.methods:
            drafts = name == "nothink"
            parts.append(_decoding_hours(work, assumed, machine, rows, work.evaluated, work.evaluated * tokens, drafts))
    hours, limit, answers = _annotating(work, assumed, machine, {"test": work.evaluated})
    parts += [(hours, limit), (_reading_hours(work, assumed, machine, work.evaluated) / machine.processes, "FLOPs")]
    parts.append((_timing_hours(work, assumed, machine), "timing"))
    tokens = work.evaluated * (2 * assumed.written + assumed.answer) + answers * assumed.answer

    return _stage(
        "evaluate",
        device,
        host_bytes(work, machine, held(work.evaluated, assumed.written) + TABLES),
        tokens * token_bytes(work) + answers * BOUNDARY + work.evaluated * assumed.written * 4 * NUMBERS,
        sum(hours for hours, _ in parts),
        max(parts)[1],
        grading_hours(2 * work.evaluated + 2 * answers, assumed, machine),
        machine,
        wrong,
    )


def _timing_hours(work: Work, assumed: Assumed, machine: Machine) -> float:
    """Of one process, a row at a time: `rounds` rounds and one before them, of every method that decodes."""
    mesh, _ = meshes(work, machine)
    kept = assumed.kept * assumed.thinking + assumed.answer
    plain = {"think": assumed.written, "deer": assumed.written, "probe": kept}
    drafted = {"eagle3": assumed.written, "deer_eagle3": assumed.written, "specexit": kept, "first_answer": kept}
    drafted["nothink"] = assumed.answer
    seconds = 0.0
    for draft, methods in ((None, plain), (work.draft, drafted)):
        pace = plan_hours.decoding_pace(
            work.target, draft, 1, assumed.written / 2, assumed.accept_length, machine.rates, mesh, work.drafted
        )
        seconds += sum(tokens for name, tokens in methods.items() if name in work.methods) / pace.tokens
    return seconds * work.timed * work.tasks * (work.rounds + 1) / HOUR


def _decoding_hours(
    work: Work, assumed: Assumed, machine: Machine, rows: int, traces: int, tokens: float, drafts: bool
) -> tuple[float, str]:
    mesh, _ = meshes(work, machine)
    rows = max(1, min(rows, traces // machine.processes))
    # Every row is read as far as the longest of them reaches: half as much again as an average trace.
    live = plan_hours.live_prefix(1.5 * (assumed.prompt + assumed.written), longest(work, assumed))
    draft = work.draft if drafts else None
    pace = plan_hours.decoding_pace(
        work.target, draft, rows, live, assumed.accept_length, machine.rates, mesh, work.drafted
    )
    return tokens / pace.tokens / machine.processes / HOUR, pace.limit


def _stage(
    name: str,
    device: dict[str, int],
    host: float,
    disk: float,
    hours: float,
    limit: str,
    grading: float,
    machine: Machine,
    wrong: str = "",
) -> Stage:
    """Grading goes on beside the device: the longer of both counts. wrong: what else is wrong than memory."""
    if grading > hours:
        hours, limit = grading, "grading"
    needs = sum(device.values())
    if not wrong and needs > machine.room:
        wrong = f"{needs / GIB:.1f} GiB a device are more than the {machine.room / GIB:.1f} that are there"
    return Stage(name, device, int(host), int(disk), hours, limit, wrong)
