"""`decode` as one program for each live prefix, each compiled when a row first reaches it.

A program that holds a loop for every live prefix takes as many times as long to compile, before the first token
(docs/speed.md). Here the host asks once a prefix whether a row goes on, and the caches grow between two programs. On a CPU
`decode` is one program: there compiling takes seconds, and an iteration less than a call.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from specexit_jax.backend import on_cpu, on_mesh
from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.resizing import resize_caches
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.decoding.timed_programs import TimedPrograms

_FOREVER = np.int32(2**30)


def several(spec: DecodeSpec, width: int) -> bool:
    """Whether prompts padded to `width` are decoded by several programs."""
    return not on_cpu() and len(spec.prefixes_after(width)) > 1


class PrefixPrograms:
    """The programs of closed batches of one spec and shape. compile_seconds: of compilation so far."""

    def __init__(self, mesh: Mesh | None):
        self._mesh, self._programs = mesh, TimedPrograms(mesh)
        self._warm: set[int] = set()

    @property
    def compile_seconds(self) -> float:
        return self._programs.compile_seconds

    def decode(
        self,
        spec: DecodeSpec,
        params: DecodeParams,
        rows: PromptRows,
        policy: Any,
        boundaries: Any,
        all_prefixes: bool = False,
    ) -> DecodeResult:
        """As `speculative.decode`. all_prefixes: every prefix's program is compiled, reached or not."""
        batch, width = rows.prompts.shape
        call, nowhere = self._programs.call, np.zeros((batch,), np.int32)
        with on_mesh(self._mesh):
            loop = make_loop(spec, params, policy, boundaries)
        first, *_ = prefixes = spec.prefixes_after(width)
        state = call(segments.open_slots, loop, batch, first)
        state = call(segments.prefill_rows, loop, (width, first), state, rows, nowhere)
        for live in prefixes:
            if live != first:
                held, state = [state], None
                state = resize_caches(self._programs, held, spec.capacities_for(live))
            if live not in self._warm:  # compiled by a call without an iteration, so that none is timed as compilation
                self._warm.add(live)
                state, _ = call(segments.segment, loop, live, state, np.int32(0), np.int32(batch))
            state, _ = call(segments.segment, loop, live, state, _FOREVER, np.int32(batch))
            if not all_prefixes and bool(jax.device_get(state.done).all()):
                break
        return call(segments.result_of_rows, spec, state, rows.prompt_length)
