"""The loop's input: one request on the host (SlotRequest), and a batch of them for the device (PromptRows)."""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from specexit_jax.decoding.sampling import PRNG, Sampling, SamplingRows


@dataclasses.dataclass(frozen=True, eq=False)
class SlotRequest:
    """One request.

    prompt: its ids. key: uint32 [2], the words of its PRNG key. thinking: whether the prompt leaves `<think>` open.
    max_length: the most tokens, prompt included. sampling: how its tokens are chosen. may_exit: whether the policy's exits are
    taken.
    """

    prompt: tuple[int, ...]
    key: np.ndarray
    thinking: bool
    max_length: int
    sampling: Sampling
    may_exit: bool = True


@flax.struct.dataclass
class PromptRows:
    """Requests as arrays of B rows: prompts padded on the right, typed PRNG keys.

    A row whose max_length is at most its prompt_length generates nothing.
    """

    prompts: Int[Array, "B P"]
    prompt_length: Int[Array, " B"]
    keys: Array
    thinking: Bool[Array, " B"]
    max_length: Int[Array, " B"]
    sampling: SamplingRows
    may_exit: Bool[Array, " B"]

    @classmethod
    def of(cls, requests: Sequence[SlotRequest], size: int, width: int, start: int = 0) -> "PromptRows":
        """`size` rows: the requests, then padding rows that generate nothing. prompts: tokens from `start` on, in `width`
        columns; prompt_length counts those before `start` too."""
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
        )

    @property
    def size(self) -> int:
        return self.prompts.shape[0]
