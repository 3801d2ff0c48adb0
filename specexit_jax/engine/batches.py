"""Steps 3 and 4 of a request's way in closed batches: requests of similar prompt length share one call of the loop."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np

from specexit_jax.backend import on_mesh
from specexit_jax.decoding.loop.by_prefix import PrefixPrograms, several
from specexit_jax.decoding.loop.speculative import decode
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.outcomes import Outcome, outcome_of
from specexit_jax.engine.placement import Clock, Placement
from specexit_jax.engine.requests import PreparedRequest, PreparedRequests
from specexit_jax.engine.specs import limits_of, padded, rule_of, spec_of


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Requests of one padded shape, ready for the loop. Rows beyond the requests are padding."""

    spec: DecodeSpec
    prepared: PreparedRequests
    rows: PromptRows


def decode_batches(prepared: PreparedRequests, placement: Placement, clock: Clock) -> Iterator[Outcome]:
    """Decodes batch after batch. With one row each request is a batch of its own, in the order of the requests."""
    known: dict[tuple, PrefixPrograms] = {}
    alone = placement.batch_size == 1
    for group in [prepared.only([one]) for one in prepared.requests] if alone else [prepared]:
        for batch in plan(group, placement):
            shape = batch.spec, batch.rows.prompts.shape
            if shape not in known:
                known[shape] = PrefixPrograms(batch.prepared.session.mesh)
                if not several(batch.spec, shape[1][1]):
                    warm_up(batch)
            programs = known[shape]
            start = time.perf_counter() - programs.compile_seconds
            result = jax.block_until_ready(execute(batch, programs))
            seconds = time.perf_counter() - programs.compile_seconds - start
            clock.seconds += seconds
            yield from outcomes(batch, result, seconds)


def plan(prepared: PreparedRequests, placement: Placement = Placement()) -> list[Batch]:
    """The requests in batches of one padded prompt length each, shortest first.

    Raises ValueError where the requests ask for two acceptance rules.
    """
    buckets: dict[int, list[PreparedRequest]] = {}
    for request in prepared.requests:
        buckets.setdefault(padded(len(request.prompt_ids)), []).append(request)
    rule, size = rule_of(request.sampling for request in prepared.requests), placement.batch_size
    batches = []
    for width, members in sorted(buckets.items()):
        width = min(width, prepared.session.target.max_position)
        spec = spec_of(prepared.only(members), rule)
        for start in range(0, len(members), size):
            chunk = members[start : start + size]
            asked = [request.in_buffer(spec.buffer_length) for request in chunk]
            rows = PromptRows.of(asked, size, width, limits=limits_of(spec, prepared.method.policy))
            batches.append(Batch(spec, prepared.only(chunk), rows))
    return batches


def execute(batch: Batch, programs: PrefixPrograms | None = None, all_prefixes: bool = False) -> DecodeResult:
    """Starts the loop on one batch. The result may not be computed yet: wait for it with jax.block_until_ready.

    programs: of earlier batches of this spec and shape. all_prefixes: see `PrefixPrograms.decode`.
    """
    session, method = batch.prepared.session, batch.prepared.method
    arguments = batch.spec, session.params, batch.rows, method.policy, method.boundaries
    if several(batch.spec, batch.rows.prompts.shape[1]):
        return (programs or PrefixPrograms(session.mesh)).decode(*arguments, all_prefixes=all_prefixes)
    with on_mesh(session.mesh):
        return decode(*arguments)


def warm_up(batch: Batch) -> None:
    """Compiles the loop for this batch's shape, for every live prefix, by the same call with no token to generate."""
    jax.block_until_ready(execute(_without_tokens(batch), all_prefixes=True))


def prefill_alone(batch: Batch) -> None:
    """Reads the prompts, by the same call with no token to generate."""
    jax.block_until_ready(execute(_without_tokens(batch)))


def _without_tokens(batch: Batch) -> Batch:
    rows = batch.rows.replace(max_length=np.zeros_like(batch.rows.max_length))
    return dataclasses.replace(batch, rows=rows)


def outcomes(batch: Batch, result: DecodeResult, seconds: float = 0.0) -> list[Outcome]:
    """One outcome for each request of the batch. seconds: of the whole batch."""
    result = jax.tree.map(np.asarray, result)
    return [
        outcome_of(batch.prepared, request, result, row, seconds) for row, request in enumerate(batch.prepared.requests)
    ]
