"""What the decoding loop and the replay ask of an exit policy and of a boundary table; policy.json asks more of a rule."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from jaxtyping import Array, Bool, Float, Int

Decision = tuple[Int[Array, " B"], Float[Array, "B T S"]]


class Policy(Protocol):
    """When to stop thinking: a frozen pytree over the accepted tokens of one verify step. What is not overridden here holds
    for a policy without state, which reads no signal and whose exits are final.

    signals: names of the S signals that it reads, in the order of the table; () where it reads none: the loop may then compile
    without the signal heads, and `signals` is None or [B, T, 0]. per_step: its decisions depend on how verification sliced the
    text, so that they cannot be replayed. exits: False where it never exits. on_trial: an exit is a trial, see `TrialPolicy`.
    Thresholds are array leaves: a sweep never recompiles.
    """

    signals: ClassVar[tuple[str, ...]] = ()
    per_step: ClassVar[bool] = False
    exits: ClassVar[bool] = True
    on_trial: ClassVar[bool] = False

    def init(self, batch: int) -> Any:
        """The state of `batch` fresh rows: a pytree whose leaves begin with [B]."""
        return ()

    def decide(
        self,
        state: Any,
        tokens: Int[Array, "B T"],
        signals: Float[Array, "B T S"] | None,
        boundary: Bool[Array, "B T"],
        valid: Bool[Array, "B T"],
        closes: Bool[Array, " B"] | None = None,
    ) -> Decision:
        """(the column of the last token kept, T where there is no exit; what the decision looked at).

        valid: the leading tokens of the step that are accepted and still thinking (`</think>` is not). closes: the rows whose
        accepted tokens contain `</think>`; None: none does.
        """
        ...

    def commit(self, state: Any, tokens, signals, boundary, valid, count: Int[Array, " B"]) -> Any:
        """The state after the first `count[b]` tokens of each row; the others as for `decide`."""
        return state


class TrialPolicy(Policy, Protocol):
    """A policy with on_trial: once the answer after an exit ends, after at most max_answer tokens, `stands` sees its mean
    log-probability and its length, and the exit is taken back where it is false."""

    max_answer: int

    def stands(self, log_probability: Float[Array, "..."], length: Int[Array, "..."]) -> Bool[Array, "..."]: ...


@dataclasses.dataclass(frozen=True)
class Terms:
    """What policy.json says of a policy itself. thresholds: one for each of `signals`; settings: further ones by name, of rules
    that have some."""

    signals: tuple[str, ...]
    thresholds: tuple[float, ...]
    smoothing: str
    budget: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Rule(Policy, Protocol):
    """A policy that policy.json can hold: a row of `policy.POLICIES`.

    smoothings: what `smoothing` may be. own_kinds: the boundary kinds of a rule that also runs without a file, by thresholds of
    its own (`alone`); () where it needs a file. by_thresholds: exits exactly where all smoothed signals pass their thresholds or
    the budget is spent, so that `calibration` can score it.
    """

    own_kinds: ClassVar[tuple[str, ...]] = ()
    by_thresholds: ClassVar[bool] = False

    @classmethod
    def smoothings(cls) -> tuple[str, ...]: ...

    @classmethod
    def of(cls, terms: Terms) -> "Rule":
        """The policy of a file."""
        ...

    @classmethod
    def wrong_in(cls, terms: Terms) -> str | None:
        """A clause on the first senseless value of this rule, None if all are sound; a rule without settings takes none."""
        return f"this rule has no settings, but the file has {', '.join(terms.settings)}" if terms.settings else None

    @classmethod
    def alone(cls, smoothing: str | None) -> "Rule":
        """The policy by thresholds of its own; asked only of a rule with own_kinds."""
        raise NotImplementedError


class BoundaryTable(Protocol):
    """Which tokens are boundaries, given the token after each (in the loop: the keyed sample of the column)."""

    def mask(self, tokens: Int[Array, "B T"], following: Int[Array, "B T"]) -> Bool[Array, "B T"]: ...
