"""Timing of the decoding loop at any shapes and any length, without a prefill: rows start with caches full of noise.

The time of an iteration depends on values only through the number of accepted drafts, which simulate_accept_length
sets. Verify and draft are timed in separate loops on the device, so that caches are updated in place and no dispatch is
counted.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding.drafts import layer_calls
from specexit_jax.decoding.loop.candidates import verify_candidates
from specexit_jax.decoding.loop.segments import open_slots, segment
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.loop.step import Observed, draft
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeState
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.exits.policy import NeverExit, Policy, unreachable
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.sizing.random_weights import noise


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed: `iterations` of the loop from `context` tokens a row on."""

    spec: DecodeSpec
    batch: int
    context: int
    iterations: int

    @property
    def live(self) -> int:
        """The live prefix that holds the whole run."""
        return self.spec.prefix_for(self.context + _generated(self.spec, self.iterations))


def make_case(
    target: TargetConfig,
    draft: DraftConfig | None,
    *,
    batch: int = 1,
    context: int = 512,
    buffer: int | None = None,
    draft_tokens: int = 3,
    tree: TreeShape | None = None,
    simulate_accept_length: float | None = None,
    iterations: int = 50,
) -> Case:
    """A case of greedy decoding that never ends. With drafts, signals and exit rule run, but no row can exit.

    buffer: the most tokens a row may have; default: just those of the run. Raises ValueError on sizes that do not fit.
    """
    for name, value in (("batch_size", batch), ("context", context), ("iterations", iterations)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but it is {value}.")
    spec = DecodeSpec(
        target,
        buffer or 2,
        stop_ids=(),
        end_think_ids=(target.vocab_size - 1,) if draft_tokens else (),
        draft=draft if draft_tokens else None,
        draft_tokens=draft_tokens,
        tree=tree,
        simulate_accept_length=simulate_accept_length,
    )
    needed = context + _generated(spec, iterations)
    if buffer is not None and buffer < needed:
        raise ValueError(f"A run from {context} tokens on needs a buffer of {needed}, but it is {buffer}.")
    return Case(dataclasses.replace(spec, buffer_length=buffer or needed), batch, context, iterations)


def _generated(spec: DecodeSpec, iterations: int) -> int:
    """The most tokens that a row gets; simulated acceptance reaches its mean over every 20 steps."""
    if spec.simulate_accept_length is None:
        return iterations * (spec.draft_tokens + 1)
    return math.ceil(iterations * spec.simulate_accept_length) + 20


class LoopTimer:
    """Times the parts of a case: `whole`, `verify` and, where there are drafts, `draft`, each compiled when first run.

    All parts work on one state that is passed from call to call, so its caches exist once. compile_seconds: of each
    part that was run. policy: default, one that reads signals wherever there are any, and never exits. boundary_every: of how
    many tokens of the vocabulary one is a boundary; 0: none.
    """

    def __init__(
        self,
        case: Case,
        params: DecodeParams,
        compiler_options: dict | None = None,
        policy: Policy | None = None,
        boundary_every: int = 0,
    ):
        self.case = case
        if policy is None:
            policy = unreachable(signals=case.spec.draft.signal_names) if case.spec.has_signals else NeverExit()
        ids = jnp.arange(case.spec.target.vocab_size, dtype=jnp.int32)
        boundaries = ids % boundary_every == 0 if boundary_every else jnp.zeros(ids.shape, bool)
        self.loop = make_loop(case.spec, params, policy, TokenBoundaries(boundaries))
        self.state = _filled(open_slots(self.loop, case.batch, case.live))
        self.compile_seconds: dict[str, float] = {}
        self._options, self._compiled = compiler_options, {}
        self.run("whole")  # a tree's first drafts know no branches yet

    @property
    def parts(self) -> tuple[str, ...]:
        return ("whole", "verify", "draft") if self.case.spec.draft_tokens else ("whole", "verify")

    def run(self, part: str) -> float:
        """Seconds of one iteration of the part."""
        number = (jnp.int32(self.case.iterations),)
        if part == "whole":
            number += (jnp.int32(self.case.batch),)  # until every row is done, which none will be
        if part not in self._compiled:
            self._compile(part, number)

        def decode(state: DecodeState) -> DecodeState:
            found = self._compiled[part](self.loop, state, *number)
            return found[0] if part == "whole" else found  # a segment also tells its iterations

        return self.timed(decode, part)

    def timed(self, decode: Callable[[DecodeState], DecodeState], part: str = "whole") -> float:
        """Seconds per iteration of a function that takes the rewound state through the case's iterations."""
        # The draft follows a commit: its pairs lie before the row's length, and must not touch the context's.
        length = self.case.context + (self.case.spec.draft_tokens + 1 if part == "draft" else 0)
        state = jax.block_until_ready(rewound(self.case.spec, self.state, jnp.int32(length)))
        start = time.perf_counter()
        self.state = jax.block_until_ready(decode(state))
        return (time.perf_counter() - start) / self.case.iterations

    def tokens(self) -> np.ndarray:
        """The tokens [B, N] that the last run of the whole loop wrote, as far as every row got."""
        if int(self.state.steps.min()) != self.case.iterations:
            raise ValueError("Some rows ended before the run did, so an iteration's time cannot be told.")
        return np.asarray(self.state.tokens[:, self.case.context : int(self.state.length.min())])

    def _compile(self, part: str, number: tuple) -> None:
        function = {"whole": segment, "verify": verify_alone, "draft": draft_alone}[part]
        start = time.perf_counter()
        lowered = function.lower(self.loop, self.case.live, self.state, *number)
        self._compiled[part] = lowered.compile(self._options)
        self.compile_seconds[part] = time.perf_counter() - start


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def rewound(spec: DecodeSpec, state: DecodeState, length: Int[Array, ""]) -> DecodeState:
    """The state rewound to `length` tokens per row, with root and drafts, so that every run does the same work."""
    batch = state.root.shape[0]
    drafts = jnp.broadcast_to(jnp.arange(spec.drafted, dtype=jnp.int32)[None, :], (batch, spec.drafted))
    return state.replace(
        length=jnp.full((batch,), length),
        max_length=jnp.full((batch,), spec.buffer_length, jnp.int32),
        root=jnp.zeros((batch,), jnp.int32),
        drafts=drafts % spec.target.vocab_size,
        thinking=jnp.ones((batch,), bool),
        done=jnp.zeros((batch,), bool),
        steps=jnp.zeros((batch,), jnp.int32),
        accept_histogram=jnp.zeros_like(state.accept_histogram),
    )


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def verify_alone(loop: LoopContext, live: int, state: DecodeState, steps: Int[Array, ""]) -> DecodeState:
    """`steps` passes of the target over root and drafts, sampled, each fed by the last one's samples."""
    vocabulary = loop.spec.target.vocab_size

    def one(_, carry):
        state, _ = carry
        found = verify_candidates(loop, live, state)
        drafts = (state.drafts + found.sampled[:, :1]) % vocabulary
        return state.replace(root=found.sampled[:, 0], drafts=drafts, target_cache=found.cache), found.features

    return jax.lax.fori_loop(0, steps, one, (state, _features(loop, state)))[0]


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def draft_alone(loop: LoopContext, live: int, state: DecodeState, steps: Int[Array, ""]) -> DecodeState:
    """`steps` times the draft's share: features fused, the pairs of a step that kept all its drafts, the next drafts."""
    kept = loop.spec.draft_tokens + 1
    count = jnp.full((state.root.shape[0],), kept, jnp.int32)

    def one(_, carry):
        state, features = jax.lax.optimization_barrier(carry)  # else the fusing, the same each time, leaves the loop
        fused, _ = layer_calls.fuse(loop, features)
        root, path = state.root[:, None], state.drafts[:, : kept - 1]
        committed = jnp.concatenate([root, path, root], axis=1)
        observed = Observed(fused, None, None, _nowhere(path), committed[:, 1:], None)
        return draft(loop, live, state, observed, committed, count), features

    return jax.lax.fori_loop(0, steps, one, (state, _features(loop, state)))[0]


def _nowhere(tokens: Int[Array, "B K"]) -> Bool[Array, "B T"]:
    return jnp.zeros((tokens.shape[0], tokens.shape[1] + 1), bool)


def _features(loop: LoopContext, state: DecodeState) -> Float[Array, "B T A"]:
    target = loop.spec.target
    shape = (state.root.shape[0], loop.spec.draft_tokens + 1, target.feature_size)
    return jnp.ones(shape, target.dtype)


@functools.partial(jax.jit, donate_argnums=0)
def _filled(state: DecodeState) -> DecodeState:
    """The state with noise in its caches: some accelerators run faster on zeros than on real values."""

    def fill(cache):
        if cache is None:
            return None
        leaves, structure = jax.tree.flatten((cache.k, cache.v))
        drawn = [noise(index, leaf.shape, leaf.dtype) for index, leaf in enumerate(leaves)]
        keys, values = jax.tree.unflatten(structure, drawn)
        return cache.replace(k=keys, v=values)

    return state.replace(target_cache=fill(state.target_cache), draft_cache=fill(state.draft_cache))
