"""The methods that decode: how many tokens are drafted, which policy may exit, and at which boundaries."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.binding import uncovered
from specexit_jax.engine.session import Session
from specexit_jax.exits.boundaries import Boundaries
from specexit_jax.exits.policy import Deer, FirstAnswer, NeverExit, Policy
from specexit_jax.exits.policy_file import PolicyFile, load_policy
from specexit_jax.exits.released import released

DRAFT_TOKENS = 3
MAX_ANSWER = 16
PARAGRAPHS = ("paragraph",)
TRIAL_CONFIDENCE = 0.95  # DEER's own
DECODED = ("think", "nothink", "first_answer", "deer", "deer_eagle3", "eagle3", "specexit", "probe")
EXITING = ("specexit", "probe")
_UNDRAFTED = ("think", "deer", "probe")


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """One row of the table, as the loop runs it. closes_thinking: in the prompt, before anything is generated."""

    name: str
    draft_tokens: int
    policy: Policy
    boundaries: Boundaries | Bool[Array, " V"]  # read by policies that exit
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
    """The method called `name`; `policy` and its boundary kinds (() for paragraphs) are what `specexit` and `probe` exit by.

    tree: methods that draft verify such a tree a step, not a chain of `draft_tokens`. max_answer: tokens after which a
    trial of `deer` (undrafted, as published) or `deer_eagle3` is judged, finished or not.
    Raises ValueError on an unknown name, on a missing policy, and where the session lacks the draft it needs.
    """
    if name not in DECODED:
        raise ValueError(f"Unknown method {name!r}: choose among {', '.join(DECODED)}.")
    if name in EXITING and policy is None:
        raise ValueError(f"Method {name!r} needs an exit policy: give one with policy=FILE.")
    if draft_tokens < 0:
        raise ValueError(f"draft_tokens must be 0 or more, but it is {draft_tokens}.")
    if session.draft is None and (name in ("eagle3", "deer_eagle3") or (name in EXITING and policy.needs_signals)):
        raise ValueError(f"Method {name!r} needs a draft model: give one with draft=FOLDER.")
    if name in EXITING and policy.needs_signals and session.draft.signals == "none":
        raise ValueError(f"Method {name!r} reads exit signals, which this draft model does not have.")
    if session.thinking is None and name not in ("think", "eagle3"):
        raise ValueError(f"Method {name!r} needs a model that thinks, but this one has no <think>.")
    drafts = name not in _UNDRAFTED and session.draft is not None
    drafted = (tree.depth if tree else draft_tokens) if drafts else 0
    chosen = policy_of(session, name, policy, max_answer)
    exits = not isinstance(chosen, NeverExit)
    table = session.boundaries(kinds or PARAGRAPHS) if exits else jnp.zeros((session.target.vocab_size,), bool)
    return Method(name, drafted, chosen, table, name == "nothink", tree if drafts else None)


def policy_of(session: Session, name: str, policy: Policy | None = None, max_answer: int = MAX_ANSWER) -> Policy:
    """What the method called `name` exits by; the arguments as for `make_method`."""
    if name in EXITING:
        return policy
    if name == "first_answer":
        return FirstAnswer(states_answer(session))
    if name in ("deer", "deer_eagle3"):
        return Deer(jnp.float32(TRIAL_CONFIDENCE), max_answer)
    return NeverExit()


def read_policy(
    session: Session,
    path: str | Path,
    exit_rule: str | None = None,
    smoother: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Policy, tuple[str, ...]]:
    """The policy of a policy.json made for this session's draft, and its boundary kinds.

    exit_rule 'released' reads no file: that rule has thresholds of its own. `smoother` replaces the file's. tell: is called
    with one sentence where the policy was not made for this session's target, sampling and lengths, or not with this smoother.
    """
    if exit_rule == "released":
        return released(smoother or "ewma"), ("released",)
    file = policy_file(session, path, exit_rule, smoother)
    if tell is not None and (sentence := uncovered(file, session, path)):
        tell(sentence)
    return file.policy(), file.boundary_kinds


def policy_file(
    session: Session, path: str | Path, exit_rule: str | None = None, smoother: str | None = None
) -> PolicyFile | None:
    """The policy.json that `read_policy` reads, with `smoother` for its own; None where it reads none."""
    if exit_rule == "released":
        return None
    if exit_rule not in (None, "default"):
        raise ValueError(f"Unknown exit rule {exit_rule!r}: choose 'default' or 'released'.")
    file = load_policy(path, session.draft_digest)
    if exit_rule is not None and file.rule != exit_rule:
        raise ValueError(f"{path} holds a policy of the rule {file.rule!r}, but {exit_rule!r} was asked for.")
    return file if smoother is None else dataclasses.replace(file, smoothing=smoother)


def states_answer(session: Session):
    """bool [V]: the tokens whose text speaks of an answer."""
    table = np.array(["answer" in text.lower() for text in session.token_texts])
    if not table.any():
        raise ValueError("Method 'first_answer' needs a token that contains 'answer', but this vocabulary has none.")
    return jnp.asarray(table)
