"""An iteration of the loop at given shapes: its time, its lower bound, its tokens, as a dict for JSON and as text."""

import dataclasses
from typing import Any

import numpy as np

from specexit_jax.decoding.spec import DecodeParams
from specexit_jax.evaluation.loop.latency import interleaved_ratio
from specexit_jax.evaluation.loop.roofline import copy_bandwidth
from specexit_jax.evaluation.loop.timing import Case, LoopTimer
from specexit_jax.exits.policy import unreachable
from specexit_jax.exits.score import Score
from specexit_jax.models.draft import signals_removed
from specexit_jax.sizing.random_weights import random_score
from specexit_jax.sizing.traffic import traffic

_BOUNDARY_EVERY = 16


def measure(timer: LoopTimer, repeats: int) -> dict[str, Any]:
    """Compile time, and of every part: ms an iteration (the median of `repeats`, in turns, and the least), bytes, the
    floor in ms and how many times the floor it takes; what the whole yields."""
    case, seconds = timer.case, {part: [] for part in timer.parts}
    for _ in range(repeats):
        for part in reversed(timer.parts):  # the whole comes last: `tokens` reads what it wrote
            seconds[part].append(timer.run(part))
    written = timer.tokens().shape[1]
    bandwidth = copy_bandwidth()
    moved = traffic(case.spec, case.batch, case.context + written / 2)
    parts = {}
    for part, taken in seconds.items():
        middle, least, size = float(np.median(taken)), min(taken), getattr(moved, part)
        floor = size / bandwidth
        parts[part] = {"ms": 1e3 * middle, "least_ms": 1e3 * least, "bytes": size, "floor_ms": 1e3 * floor}
        parts[part]["ratio"] = middle / floor
    yielded = written / case.iterations
    return {
        "compile_seconds": timer.compile_seconds,
        "copy_bytes_per_second": bandwidth,
        **parts,
        "tokens_per_iteration": yielded,
        "tokens_per_second": 1e3 * case.batch * yielded / parts["whole"]["ms"],
    }


def signal_share(timer: LoopTimer, params: DecodeParams, rounds: int = 50) -> dict[str, float]:
    """The time that signals, readings, exit score and exit rule add to an iteration, relative to one without them, with its 95 %
    interval. One token in 16 of the vocabulary is a boundary; thinking writes fewer. timer: of the case."""
    spec = timer.case.spec
    if not spec.has_signals:
        raise ValueError("Without drafts the loop reads no signals: leave --signals off, or set --draft_tokens.")
    draft, cut = signals_removed(spec.draft, params.draft)
    bare = dataclasses.replace(timer.case, spec=dataclasses.replace(spec, draft=draft, end_think_ids=()))
    without = LoopTimer(bare, params.replace(draft=cut))
    names = spec.draft.signal_names
    policy = unreachable(Score(random_score(names), names))
    scored = LoopTimer(timer.case, params, policy=policy, boundary_every=_BOUNDARY_EVERY)
    ratio = interleaved_ratio(lambda: without.run("whole"), lambda: scored.run("whole"), rounds)
    return {"share": ratio.median - 1, "low": ratio.low - 1, "high": ratio.high - 1, "rounds": ratio.rounds}


def text(result: dict[str, Any]) -> str:
    """The measurements as text."""
    lines = [_heading(result), _machine(result), f"{'':8}{'ms':>10}{'MB moved':>12}{'floor ms':>11}{'ratio':>8}"]
    for part in ("verify", "draft", "whole"):
        if row := result.get(part):
            numbers = f"{row['ms']:10.3f}{row['bytes'] / 1e6:12.1f}{row['floor_ms']:11.3f}{row['ratio']:8.2f}"
            lines.append(f"{part:8}{numbers}")
    lines.append(
        f"{result['tokens_per_iteration']:.2f} tokens an iteration, {result['tokens_per_second']:.1f} tokens/s"
    )
    if share := result.get("signals"):
        low, high = 100 * share["low"], 100 * share["high"]
        lines.append(
            f"signals, exit score and exit rule add {100 * share['share']:+.1f} % (95 % interval {low:+.1f} to {high:+.1f})"
        )
    if peers := result.get("peers"):
        lines.append(f"in turns with its peers: {peers['loop']['tokens_per_second']:.1f} tokens/s")
        lines += [_peer(name, found) for name, found in peers.items() if name != "loop"]
    return "\n".join(lines)


def described(case: Case) -> dict[str, Any]:
    """The case, for JSON."""
    spec = case.spec
    return {
        "batch_size": case.batch,
        "context": case.context,
        "buffer": spec.buffer_length,
        "live_prefix": case.live,
        "draft_kind": spec.draft.kind if spec.draft else None,
        "draft_tokens": spec.draft_tokens,
        "tree": None if spec.tree is None else list(dataclasses.astuple(spec.tree)),
        "simulate_accept_length": spec.simulate_accept_length,
        "iterations": case.iterations,
    }


def _heading(result: dict[str, Any]) -> str:
    tree = f" (a tree of {','.join(map(str, result['tree']))})" if result["tree"] else ""
    kind = f" ({result['draft_kind']})" if result["draft_kind"] else ""
    accepted = result["simulate_accept_length"]
    simulated = "" if accepted is None else f", accept length {accepted:g} simulated"
    return (
        f"{result['preset']}, {result['dtype']} on {result['device']}, batch {result['batch_size']}, context "
        f"{result['context']} in a buffer of {result['buffer']}, {result['draft_tokens']} drafts{kind}{tree}{simulated}"
    )


def _machine(result: dict[str, Any]) -> str:
    compiled = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in result["compile_seconds"].items())
    return f"copies at {result['copy_bytes_per_second'] / 1e9:.1f} GB/s; compiled: {compiled}"


def _peer(name: str, found: dict[str, Any]) -> str:
    if "missing" in found:
        return f"{name}: {found['missing']}"
    how = "" if found.get("compiled", True) else f", not compiled ({found['not_compiled_because']})"
    return (
        f"{name}: {found['tokens_per_second']:.1f} tokens/s{how}; the loop is {found['times']:.2f} times as fast "
        f"(same ids: {found['same_ids']} of {found['ids']})"
    )
