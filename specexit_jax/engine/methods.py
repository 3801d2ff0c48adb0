"""The methods that decode: how many tokens are drafted, which policy may exit, and at which boundaries."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.binding import uncovered
from specexit_jax.engine.session import Session
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.exits.policy import POLICIES, Deer, FirstAnswer, NeverExit, Policy
from specexit_jax.exits.policy_file import PolicyFile, load_policy
from specexit_jax.exits.protocols import BoundaryTable
from specexit_jax.exits.score import SCORE
from specexit_jax.exits.signals import of_draft

DRAFT_TOKENS = 3
MAX_ANSWER = 16
PARAGRAPHS = ("paragraph",)
TRIAL_CONFIDENCE = 0.95  # the threshold of the DEER paper


@dataclasses.dataclass(frozen=True)
class MethodRow:
    """How a method decodes.

    drafts: whether it verifies drafted tokens if the session has a draft; needs_draft: whether it must have one. policy: makes
    its exit policy of the session and the length of a trial; None: the caller gives the policy. thinks: whether it needs a
    model that thinks. closes_thinking: whether it closes the thinking in the prompt.
    """

    drafts: bool
    policy: Callable[[Session, int], Policy] | None
    needs_draft: bool = False
    thinks: bool = True
    closes_thinking: bool = False


def _never(session: Session, max_answer: int) -> NeverExit:
    return NeverExit()


def _deer(session: Session, max_answer: int) -> Deer:
    return Deer(jnp.float32(TRIAL_CONFIDENCE), max_answer)


METHODS: dict[str, MethodRow] = {
    "think": MethodRow(drafts=False, policy=_never, thinks=False),
    "nothink": MethodRow(drafts=True, policy=_never, closes_thinking=True),
    "first_answer": MethodRow(drafts=True, policy=lambda session, _: FirstAnswer(states_answer(session))),
    "deer": MethodRow(drafts=False, policy=_deer),
    "deer_eagle3": MethodRow(drafts=True, policy=_deer, needs_draft=True),
    "eagle3": MethodRow(drafts=True, policy=_never, needs_draft=True, thinks=False),
    "specexit": MethodRow(drafts=True, policy=None),
    "probe": MethodRow(drafts=False, policy=None),
}
DECODED = tuple(METHODS)
EXITING = tuple(name for name, row in METHODS.items() if row.policy is None)


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """One row of METHODS, made for a session. draft_tokens: drafted in each iteration; the depth of a tree."""

    name: str
    draft_tokens: int
    policy: Policy
    boundaries: BoundaryTable  # read by policies that exit
    closes_thinking: bool = False
    tree: TreeShape | None = None  # of the drafts; None for a chain


def make_method(
    session: Session,
    name: str,
    policy: Policy | None = None,
    kinds: Sequence[str] = PARAGRAPHS,
    draft_tokens: int = DRAFT_TOKENS,
    *,
    max_answer: int = MAX_ANSWER,
    tree: TreeShape | None = None,
) -> Method:
    """The method called `name`, for a session.

    policy, kinds: the exit policy of `specexit` and `probe`, and its kinds of boundary (() for paragraphs). draft_tokens: the
    length of the drafted chain. tree: a tree that is drafted instead. max_answer: tokens after which a trial of `deer`
    (without drafts, as published) or `deer_eagle3` is judged, finished or not.
    Raises ValueError on an unknown name, on a missing policy, and if the session lacks the draft, the signals or the
    thinking that the method needs.
    """
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}: choose among {', '.join(METHODS)}.")
    row = METHODS[name]
    if row.policy is None and policy is None:
        raise ValueError(f"Method {name!r} needs an exit policy: give one with policy=FILE.")
    if draft_tokens < 0:
        raise ValueError(f"draft_tokens must be 0 or more, but it is {draft_tokens}.")
    reads = row.policy is None and policy.reads
    if session.draft is None and (row.needs_draft or reads):
        raise ValueError(f"Method {name!r} needs a draft model: give one with draft=FOLDER.")
    if reads and session.draft.signals == "none":
        raise ValueError(f"Method {name!r} reads exit signals, which this draft model does not have.")
    if session.thinking is None and row.thinks:
        raise ValueError(f"Method {name!r} needs a model that thinks, but this one has no <think>.")
    drafts = row.drafts and session.draft is not None
    drafted = (tree.depth if tree else draft_tokens) if drafts else 0
    chosen = policy_of(session, name, policy, max_answer)
    table = TokenBoundaries(jnp.zeros((session.target.vocab_size,), bool))
    if chosen.exits:
        table = session.boundaries(kinds or PARAGRAPHS)
    return Method(name, drafted, chosen, table, row.closes_thinking, tree if drafts else None)


def policy_of(session: Session, name: str, policy: Policy | None = None, max_answer: int = MAX_ANSWER) -> Policy:
    """The exit policy of the method called `name`. Arguments as for `make_method`."""
    own = METHODS[name].policy
    return policy if own is None else own(session, max_answer)


def read_policy(
    session: Session,
    path: str | Path,
    exit_rule: str | None = None,
    smoother: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Policy, tuple[str, ...]]:
    """The policy of a policy.json made for this session's draft, and its boundary kinds.

    exit_rule: must be the file's; a rule with thresholds of its own (`released`) reads no file. smoother: replaces the file's.
    tell: called with one sentence if the policy was made for another target, sampling, length or smoother.
    Raises ValueError if the policy does not fit the draft or the rule.
    """
    if runs_alone(exit_rule):
        return POLICIES[exit_rule].alone(smoother), POLICIES[exit_rule].own_kinds
    file = policy_file(session, path, exit_rule, smoother)
    if tell is not None and (sentence := uncovered(file, session, path)):
        tell(sentence)
    return file.policy(), file.boundary_kinds


def policy_file(
    session: Session, path: str | Path, exit_rule: str | None = None, smoother: str | None = None
) -> PolicyFile | None:
    """The policy.json that `read_policy` reads, with `smoother` instead of its own; None for a rule without a file."""
    if runs_alone(exit_rule):
        return None
    file = load_policy(path, session.draft_digest)
    if exit_rule is not None and file.rule != exit_rule:
        raise ValueError(f"{path} holds a policy of the rule {file.rule!r}, but {exit_rule!r} was asked for.")
    read = of_draft(file.signals)
    if session.draft is not None and read != session.draft.signal_names:
        raise ValueError(
            f"{path} has thresholds of {', '.join(read)}, but the signals of this draft are "
            f"{', '.join(session.draft.signal_names)}: run launch.calibrate for this draft"
        )
    if smoother is None or smoother == file.smoothing:
        return file
    if SCORE in (smoother, file.smoothing):
        raise ValueError(
            f"{path} exits by smoothing {file.smoothing!r}, whose thresholds are not those of {smoother!r}: "
            "run launch.calibrate with this smoother alone (calibrate.smoothers)."
        )
    return dataclasses.replace(file, smoothing=smoother)


def runs_alone(exit_rule: str | None) -> bool:
    """Whether a rule has thresholds of its own, so that it reads no policy.json. Raises ValueError on an unknown rule."""
    if exit_rule is not None and exit_rule not in POLICIES:
        raise ValueError(f"Unknown exit rule {exit_rule!r}: choose {' or '.join(map(repr, POLICIES))}.")
    return exit_rule is not None and bool(POLICIES[exit_rule].own_kinds)


def states_answer(session: Session):
    """bool [V]: the tokens whose text contains "answer", in any case. Raises ValueError where there is none."""
    table = np.array(["answer" in text.lower() for text in session.token_texts])
    if not table.any():
        raise ValueError("Method 'first_answer' needs a token that contains 'answer', but this vocabulary has none.")
    return jnp.asarray(table)
