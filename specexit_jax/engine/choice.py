"""Chooses the method and the exit policy where the caller does not name them, and gives the reason in one line."""

import dataclasses
from pathlib import Path

from specexit_jax.engine.binding import policies_of
from specexit_jax.engine.methods import EXITING, read_policy, runs_alone
from specexit_jax.engine.session import BUILTIN, Session, builtin_folder
from specexit_jax.exits.policy import Policy
from specexit_jax.models.checkpoints.hf_tensors import local_folder

_ASKED = "the caller asked for it"


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A method and its exit policy.

    name: of the method. policy: None for a method that does not exit by signals. kinds: boundary kinds. why: the reason, as a
    clause. uncovered: a sentence where the policy was calibrated under other conditions than those of this session; None where
    it was not. path: of the policy's file; None where the policy has none.
    """

    name: str
    policy: Policy | None
    kinds: tuple[str, ...]
    why: str
    uncovered: str | None = None
    path: Path | None = None

    @property
    def line(self) -> str:
        """The method and the reason."""
        return f"method {self.name}: {self.why}"


def policies_beside(session: Session, draft: str | Path) -> list[Path]:
    """The existing ones of two files: the policy.json in a draft's folder, and the one beside the folder, where launch.calibrate
    writes it (WORKDIR/policy.json for WORKDIR/draft_model)."""
    return policies_of(builtin_folder(session) if str(draft) == BUILTIN else local_folder(draft, "draft"))


def choose(
    session: Session,
    draft: str | Path | None,
    name: str | None = None,
    policy: str | Path | None = None,
    exit_rule: str | None = None,
    smoother: str | None = None,
) -> Choice:
    """The method called `name`; without a name `specexit` where the draft has a policy, else `eagle3`, and `think` without a draft.

    draft: the folder that the session's draft was loaded from. policy, exit_rule, smoother: as for `read_policy`; where no policy
    is named, `policies_beside` the draft are tried. Raises ValueError or FileNotFoundError where the named method or policy
    cannot be used with this session.
    """
    asked = [key for key, value in {"policy": policy, "exit_rule": exit_rule, "smoother": smoother}.items() if value]
    if name is not None:
        return _named(session, draft, name, policy, exit_rule, smoother, asked)
    if session.draft is None:
        return Choice("think", None, (), f"there is no draft model{_ignored(asked)}")
    if policy or runs_alone(exit_rule):
        return _exits(session, "specexit", policy or "", exit_rule, smoother, _exits_by(policy, exit_rule))
    if session.thinking is None:
        return Choice("eagle3", None, (), f"the model does not think, so there is nothing to exit{_ignored(asked)}")
    if session.draft.signals == "none":
        return Choice("eagle3", None, (), f"the draft has no exit signals{_ignored(asked)}")
    return _beside(session, draft, exit_rule, smoother, asked)


def _named(session, draft, name, policy, exit_rule, smoother, asked: list[str]) -> Choice:
    if name not in EXITING:
        return Choice(name, None, (), f"{_ASKED}{_ignored(asked)}")
    if session.draft is None:
        raise ValueError(f"Method {name!r} needs a draft model: give one with draft=FOLDER.")
    if runs_alone(exit_rule):
        return _exits(session, name, "", exit_rule, smoother, f"{_ASKED}; {_exits_by(policy, exit_rule)}")
    if policy is None:
        beside = policies_beside(session, draft)
        if not beside:
            raise ValueError(
                f"Method {name!r} needs an exit policy, and no policy.json lies in {draft} or beside it: give one with "
                "policy=FILE, or make one with launch.calibrate."
            )
        policy = _fitting(session, beside)[0] or beside[0]
    return _exits(session, name, policy, exit_rule, smoother, f"{_ASKED}; {_exits_by(policy, exit_rule)}")


def _beside(session, draft, exit_rule, smoother, asked: list[str]) -> Choice:
    """The choice that the policies beside the draft allow."""
    beside = policies_beside(session, draft)
    fitting, reason = _fitting(session, beside)
    if fitting:
        return _exits(session, "specexit", fitting, exit_rule, smoother, _exits_by(fitting, exit_rule))
    missing = "no policy.json lies with the draft; launch.calibrate makes one"
    return Choice("eagle3", None, (), f"no exit, since {reason or missing}{_ignored(asked)}")


def _exits_by(policy: str | Path, exit_rule: str | None) -> str:
    """A clause that names the policy's file, or the rule of a policy without a file."""
    if not runs_alone(exit_rule):
        return f"exits by {policy}"
    return f"exits by the {exit_rule} rule{_ignored(['policy'] if policy else [])}"


def _exits(session: Session, name: str, path: str | Path, exit_rule, smoother, why: str) -> Choice:
    told: list[str] = []
    policy, kinds = read_policy(session, path, exit_rule, smoother, told.append)
    return Choice(name, policy, kinds, why, told[0] if told else None, None if runs_alone(exit_rule) else Path(path))


def _fitting(session: Session, paths: list[Path]) -> tuple[Path | None, str]:
    """(the first policy that can be used with this draft, ""), or (None, what is wrong with the first one; "" without any)."""
    reasons = []
    for path in paths:
        try:
            read_policy(session, path)
        except ValueError as error:
            reasons.append(str(error))
        else:
            return path, ""
    return None, reasons[0] if reasons else ""


def _ignored(arguments: list[str]) -> str:
    """A clause that names the caller's arguments that have no effect."""
    return f"; {', '.join(arguments)} {'is' if len(arguments) == 1 else 'are'} ignored" if arguments else ""
