"""The loop's input: one request on the host (SlotRequest), and a batch of them for the device (PromptRows)."""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding.sampling import PRNG, Sampling, SamplingRows

_NEVER = 2**30  # a position that no row reaches


@dataclasses.dataclass(frozen=True, eq=False)
class SlotRequest:
    """One request.

    prompt: its ids. key: uint32 [2], the words of its PRNG key. thinking: whether the prompt leaves `<think>` open.
    max_length: the most tokens, prompt included. sampling: how its tokens are chosen. may_exit: whether the policy's exits are
    taken. limits: thresholds of its own, one for each of the policy's signals; None: the policy's. thinking_budget: the most
    thinking tokens, after which `</think>` is written; None: any number. The last two need a loop with `DecodeSpec.own_rules`.
    """

    prompt: tuple[int, ...]
    key: np.ndarray
    thinking: bool
    max_length: int
    sampling: Sampling
    may_exit: bool = True
    limits: tuple[float, ...] | None = None
    thinking_budget: int | None = None


@flax.struct.dataclass
class OwnRules:
    """What each row has of its own: thresholds of the policy's signals, and an end of its thinking.

    until: the position at which `</think>` begins at the latest. spent: whether it was begun there for that reason.
    """

    limits: Float[Array, "B S"]
    until: Int[Array, " B"]
    spent: Bool[Array, " B"]

    @classmethod
    def none(cls, size: int, signals: int) -> "OwnRules":
        """Of empty rows."""
        until = jnp.full((size,), _NEVER, jnp.int32)
        return cls(jnp.zeros((size, signals), jnp.float32), until, jnp.zeros((size,), bool))

    @classmethod
    def of(cls, requests: Sequence[SlotRequest], size: int, limits: Sequence[float]) -> "OwnRules":
        """`size` rows as numpy arrays: the requests, then padding. limits: the policy's own."""
        rows, until = np.tile(np.asarray(limits, np.float32), (size, 1)), np.full((size,), _NEVER, np.int32)
        for row, request in enumerate(requests):
            if request.limits is not None:
                rows[row] = request.limits
            if request.thinking_budget is not None:
                until[row] = min(len(request.prompt) + request.thinking_budget, _NEVER)
        return cls(rows, until, np.zeros((size,), bool))


@flax.struct.dataclass
class PromptRows:
    """Requests as arrays of B rows: prompts padded on the right, typed PRNG keys.

    A row whose max_length is at most its prompt_length generates nothing. own: None in a loop without own rules.
    """

    prompts: Int[Array, "B P"]
    prompt_length: Int[Array, " B"]
    keys: Array
    thinking: Bool[Array, " B"]
    max_length: Int[Array, " B"]
    sampling: SamplingRows
    may_exit: Bool[Array, " B"]
    own: OwnRules | None = None

    @classmethod
    def of(
        cls,
        requests: Sequence[SlotRequest],
        size: int,
        width: int,
        start: int = 0,
        limits: Sequence[float] | None = None,
    ) -> "PromptRows":
        """`size` rows: the requests, then padding rows that generate nothing. prompts: tokens from `start` on, in `width`
        columns; prompt_length counts those before `start` too. limits: the policy's, for a loop with own rules; else None."""
        spare = size - len(requests)
        prompts = np.zeros((size, width), np.int32)
        for row, request in enumerate(requests):
            prompts[row, : len(request.prompt) - start] = request.prompt[start:]
        keys = np.zeros((size, 2), np.uint32)
        keys[: len(requests)] = [request.key for request in requests]
        return cls(
            prompts,
            np.array([len(request.prompt) for request in requests] + [1] * spare, np.int32),
            jax.random.wrap_key_data(keys, impl=PRNG),
            np.array([request.thinking for request in requests] + [False] * spare),
            np.array([request.max_length for request in requests] + [0] * spare, np.int32),
            SamplingRows.of([request.sampling for request in requests] + [Sampling()] * spare),
            np.array([request.may_exit for request in requests] + [False] * spare),
            None if limits is None else OwnRules.of(requests, size, limits),
        )

    @property
    def size(self) -> int:
        return self.prompts.shape[0]
