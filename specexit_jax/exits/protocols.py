"""The interfaces of exit policies and boundary tables, which the decoding loop and the replay call."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from jaxtyping import Array, Bool, Float, Int

from specexit_jax.exits.score import ScoreNetwork

Decision = tuple[Int[Array, " B"], Float[Array, "B T S"]]


class Policy(Protocol):
    """When to exit: a frozen pytree that decides on the accepted tokens of one verify step.

    The defaults are those of a policy without state, which reads no signals and whose exits are final.

    reads: names of the columns that it is given as the argument `signals`: signals of the draft in the order of the table, then
    readings of the target (`readings.READINGS`). Where it is (), the loop may be compiled without signal heads, and the
    argument is None or [B, T, 0]. signals: names of the S smoothed signals, which it compares; the default reads these.
    limits: its thresholds, one for each of `signals`; () where it has none. per_step: whether its decisions depend on how verify
    steps divide the text; such a policy cannot be replayed. exits: False for a policy that never exits. on_trial: whether an exit
    is a trial, see `TrialPolicy`. reads_tokens: False for a policy whose `decide` may get None for the tokens; a replay then need
    not read them. Thresholds must be array leaves, so that other values do not compile anew.
    """

    signals: ClassVar[tuple[str, ...]] = ()
    per_step: ClassVar[bool] = False
    exits: ClassVar[bool] = True
    on_trial: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        return self.signals

    @property
    def limits(self) -> Float[Array, " S"] | tuple[()]:
        return ()

    def with_limits(self, limits: Float[Array, "B S"]) -> "Policy":
        """The policy that compares each row's signals with the row's own thresholds; itself where it has none."""
        return self

    def init(self, batch: int) -> Any:
        """The initial state of `batch` rows: a pytree of arrays [B, ...]."""
        return ()

    def decide(
        self,
        state: Any,
        tokens: Int[Array, "B T"],
        signals: Float[Array, "B T R"] | None,
        boundary: Bool[Array, "B T"],
        valid: Bool[Array, "B T"],
        closes: Bool[Array, " B"] | None = None,
    ) -> Decision:
        """(the column of the last token that the exit keeps, T where there is no exit; the smoothed signals).

        tokens: candidates of the step. boundary: which of them are boundaries. valid: which of them are accepted thinking tokens;
        these are the leading ones, and `</think>` is not one. closes: the rows whose accepted tokens contain `</think>`; None:
        no row.
        """
        ...

    def commit(self, state: Any, tokens, signals, boundary, valid, count: Int[Array, " B"]) -> Any:
        """The state after the first `count[b]` tokens of each row. The other arguments are those of `decide`."""
        return state

    def decide_and_commit(
        self, state: Any, tokens, signals, boundary, valid, thinking: Bool[Array, "B T"], closes=None
    ) -> tuple[Decision, Any]:
        """(what `decide` says, the state after all accepted thinking tokens, or None where `commit` is to compute it).

        For policies that compute both at once; the loop calls it. Exits are final, so a row that exits needs no state. valid: the
        tokens of `thinking` after which an exit is possible.
        """
        return self.decide(state, tokens, signals, boundary, valid, closes), None


class TrialPolicy(Policy, Protocol):
    """A policy with on_trial, whose exits can be taken back. max_answer: the most tokens of an answer on trial."""

    max_answer: int

    def stands(self, log_probability: Float[Array, "..."], length: Int[Array, "..."]) -> Bool[Array, "..."]:
        """Whether the exit stands; where it is False, the row goes back to the boundary and thinks on.

        It is called when the answer on trial has ended. log_probability: the mean over its tokens. length: their number.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Terms:
    """What policy.json says about the policy itself (`PolicyFile`). thresholds: one for each of `signals`. score: the network
    of the exit score; None where there is none."""

    signals: tuple[str, ...]
    thresholds: tuple[float, ...]
    smoothing: str
    budget: int | None = None
    score: ScoreNetwork | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Rule(Policy, Protocol):
    """A policy that policy.json can hold: a row of `policy.POLICIES`.

    own_kinds: the boundary kinds of a rule that can run without a file, with its own thresholds (`alone`); () where it needs a
    file. by_thresholds: whether it exits exactly where all smoothed signals pass their thresholds or the budget is reached; only
    such a rule can be calibrated.
    """

    own_kinds: ClassVar[tuple[str, ...]] = ()
    by_thresholds: ClassVar[bool] = False

    @classmethod
    def smoothings(cls) -> tuple[str, ...]:
        """The values that `smoothing` can have."""
        ...

    @classmethod
    def of(cls, terms: Terms) -> "Rule":
        """The policy with the terms of a file."""
        ...

    @classmethod
    def wrong_in(cls, terms: Terms) -> str | None:
        """A clause about the first value that this rule does not allow; None if there is none. The default refuses an
        exit score and settings."""
        if terms.score is not None:
            return "this rule compares no exit score, but the file has a score network"
        return f"this rule has no settings, but the file has {', '.join(terms.settings)}" if terms.settings else None

    @classmethod
    def alone(cls, smoothing: str | None) -> "Rule":
        """The policy with the rule's own thresholds; only for a rule with own_kinds."""
        raise NotImplementedError


class BoundaryTable(Protocol):
    """Which tokens are boundaries, as a pytree of tables over the vocabulary."""

    def mask(self, tokens: Int[Array, "B T"], following: Int[Array, "B T"]) -> Bool[Array, "B T"]:
        """Which tokens are boundaries. following: the token after each; in the loop, the target's sample of the column."""
        ...
