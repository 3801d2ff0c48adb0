"""The loop compared with other ways to decode: driven by the host, and transformers' `generate`; same weights,
interleaved."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from specexit_jax.decoding.loop.speculative import decode
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.sampling import Sampling, SamplingRows, placeholder_keys
from specexit_jax.decoding.spec import DecodeParams
from specexit_jax.evaluation.loop.host_loop import decode_from_host
from specexit_jax.evaluation.loop.timing import Case, LoopTimer
from specexit_jax.evaluation.loop.transformers_peer import TransformersPeer, installed
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.exits.policy import NeverExit

CHECKED = (64, 32)  # tokens of the prompts, and of the continuations, on which transformers' ids are compared with ours


def compare(timer: LoopTimer, params: DecodeParams, repeats: int, threads: int, compiles: bool = True) -> dict:
    """Tokens a second of all three (transformers only where torch is installed), as one dict for JSON.

    `times` says how many times as fast as the peer the loop is, by medians over `repeats` rounds in turns.
    `same_ids` counts the leading tokens of a row that equal the loop's, out of `ids`: all of them, unless rounding
    decided a near tie. transformers decodes one token a pass; its ids are held against plain decoding of short prompts.
    threads: torch's, on a CPU. compiles: whether to try torch.compile.
    """
    case = timer.case
    runs = {"loop": lambda: timer.run("whole")}
    results: dict = {"loop": {}}
    timer.run("whole")
    ours, found = timer.tokens(), []
    yielded = ours.shape[1] / case.iterations
    if case.spec.tree is None:

        def from_host(state):
            state, written = decode_from_host(timer.loop, case.live, state, case.iterations)
            found[:] = written
            return state

        timer.timed(from_host)
        same = min(_leading(row, np.asarray(other)) for row, other in zip(ours, found, strict=True))
        results["host_loop"] = {"same_ids": same, "ids": ours.shape[1]}
        runs["host_loop"] = lambda: timer.timed(from_host)
    if installed():
        peer = TransformersPeer(case.spec.target, params.target, threads, compiles)
        prompts = np.random.default_rng(0).integers(0, case.spec.target.vocab_size, (case.batch, case.context))
        results["transformers"] = {"warm_up_seconds": peer.warm_up(prompts, ours.shape[1])}
        results["transformers"] |= {
            "compiled": peer.compiled,
            "not_compiled_because": peer.reason,
            "device": peer.device,
        }
        results["transformers"] |= _agreement(case, params, peer, prompts[:, : CHECKED[0]])
        runs["transformers"] = lambda: peer.generate(prompts, ours.shape[1])[1] * yielded
    else:
        results["transformers"] = {"missing": "torch is not installed"}
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(run())
    pace = {name: case.batch * yielded / float(np.median(taken)) for name, taken in seconds.items()}
    for name, speed in pace.items():
        results[name] |= {"tokens_per_second": speed, "times": pace["loop"] / speed}
    return results


def _agreement(case: Case, params: DecodeParams, peer: TransformersPeer, prompts: np.ndarray) -> dict:
    new = CHECKED[1]
    theirs = peer.generate(prompts, new, compiled=False)[0]
    ours = greedy_ids(case, params, prompts, new)
    return {"same_ids": min(_leading(*rows) for rows in zip(ours, theirs, strict=True)), "ids": new}


def greedy_ids(case: Case, params: DecodeParams, prompts: np.ndarray, new_tokens: int) -> np.ndarray:
    """The loop's tokens, without drafts, after prompts [B, P]: [B, new_tokens]."""
    batch, width = prompts.shape
    plain = {"draft": None, "draft_tokens": 0, "tree": None, "simulate_accept_length": None, "end_think_ids": ()}
    spec = dataclasses.replace(case.spec, buffer_length=width + new_tokens, **plain)
    rows = PromptRows(
        prompts=jnp.asarray(prompts, jnp.int32),
        prompt_length=jnp.full((batch,), width, jnp.int32),
        keys=placeholder_keys(0, batch),
        thinking=jnp.zeros((batch,), bool),
        max_length=jnp.full((batch,), width + new_tokens, jnp.int32),
        sampling=SamplingRows.of([Sampling()] * batch),
        may_exit=jnp.zeros((batch,), bool),
    )
    nowhere = TokenBoundaries(jnp.zeros((spec.target.vocab_size,), bool))
    result = decode(spec, DecodeParams(params.target), rows, NeverExit(), nowhere)
    return np.asarray(result.tokens[:, width:])


def _leading(ours: np.ndarray, theirs: np.ndarray) -> int:
    """How many tokens are equal before the first that is not."""
    count = min(len(ours), len(theirs))
    return int(np.cumprod(ours[:count] == theirs[:count]).sum())
