"""Requests: as a caller gives them, with the settings of the call, and as the engine has prepared them."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.methods import Method
from specexit_jax.engine.session import Session


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt. Its noise depends on (seed, id, position) alone: not on the method, the batch or the padding.

    sampling, max_new_tokens: its own; None: those of the call (`DecodeSettings`).
    """

    id: str
    prompt_ids: tuple[int, ...]
    seed: int = 0
    sampling: Sampling | None = None
    max_new_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """How the requests of one call are decoded.

    sampling, max_new_tokens: of requests that have none of their own; None: the target's. record_signals: keep the draft's
    signals at every token (`Outcome.signals`). may_exit: whether exits are taken. If not, the
    tokens are those of the method without its policy, decoded by the program that is compiled with the policy. thinking_budget:
    the most thinking tokens, after which `</think>` is written; None: any number. logprobs: keep log-probabilities
    (`Outcome.logs`), those of so many most likely tokens beside the written ones; 0: none.
    """

    sampling: Sampling | None = None
    max_new_tokens: int | None = None
    record_signals: bool = False
    may_exit: bool = True
    thinking_budget: int | None = None
    logprobs: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedRequest:
    """A checked request, with all that the later steps need to know of it.

    prompt_ids: as the method decodes them. thinking: whether they leave `<think>` open. key: uint32 [2], the words of its
    PRNG key. sampling, max_new_tokens: the request's own, or else the call's, or else the target's. may_exit, thinking_budget:
    the call's.
    """

    id: str
    seed: int
    prompt_ids: tuple[int, ...]
    thinking: bool
    key: np.ndarray
    sampling: Sampling
    max_new_tokens: int
    may_exit: bool = True
    thinking_budget: int | None = None

    def in_buffer(self, length: int, limits: Sequence[float] | None = None) -> SlotRequest:
        """The request as the loop takes it, in a buffer of `length` tokens, prompt included: tokens beyond it are cut.

        limits: thresholds of its own, for slots with own rules; None: the policy's.
        """
        longest = min(len(self.prompt_ids) + self.max_new_tokens, length)
        told = self.prompt_ids, self.key, self.thinking, longest, self.sampling, self.may_exit
        return SlotRequest(*told, None if limits is None else tuple(limits), self.thinking_budget)


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedRequests:
    """Requests that were prepared for one session and one method."""

    session: Session
    method: Method
    requests: tuple[PreparedRequest, ...]
    record_signals: bool = False
    logprobs: int = 0

    def only(self, requests: Iterable[PreparedRequest]) -> "PreparedRequests":
        """Some of the requests, with all else unchanged."""
        return dataclasses.replace(self, requests=tuple(requests))
