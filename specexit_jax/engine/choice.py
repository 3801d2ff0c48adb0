"""Which method decodes, and by which policy, where the caller leaves it open; in one line, why."""

import dataclasses
from pathlib import Path

from specexit_jax.engine.binding import policies_of
from specexit_jax.engine.methods import EXITING, read_policy, runs_alone
from specexit_jax.engine.session import Session
from specexit_jax.exits.policy import Policy
from specexit_jax.models.checkpoints.hf_tensors import local_folder


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The method's name, what it exits by (None where it exits by no policy of a file), and why it was chosen. uncovered: a
    sentence where the policy was not made for this session's target, sampling and lengths, or not with this smoother;
    path: of the policy's file, None without one."""

    name: str
    policy: Policy | None
    kinds: tuple[str, ...]
    why: str
    uncovered: str | None = None
    path: Path | None = None

    @property
    def line(self) -> str:
        return f"method {self.name}: {self.why}"


def policies_beside(draft: str | Path) -> list[Path]:
    """The policy.json in a draft's folder, and the one beside it, where launch.calibrate leaves it (WORKDIR/policy.json of
    WORKDIR/draft_model), as far as they are there."""
    return policies_of(local_folder(draft, "draft"))


def choose(
    session: Session,
    draft: str | Path | None,
    name: str | None = None,
    policy: str | Path | None = None,
    exit_rule: str | None = None,
    smoother: str | None = None,
) -> Choice:
    """The method called `name`, else `specexit` where the draft's policy is there, `eagle3` where it is not, and `think` without
    a draft. draft: the folder that the session's was loaded from; policy, exit_rule, smoother: as for `read_policy`.

    A policy that is not named is looked for beside the draft. Raises ValueError or FileNotFoundError, one sentence, where a
    method or policy was asked for that does not fit.
    """
    asked = [flag for flag, value in _flags(policy, exit_rule, smoother).items() if value]
    if name is not None:
        return _named(session, draft, name, policy, exit_rule, smoother, asked)
    if session.draft is None:
        return Choice("think", None, (), f"there is no draft (--draft names one){_ignored(asked)}")
    if policy or runs_alone(exit_rule):
        by = f"the {exit_rule} rule{_ignored(['--policy'] if policy else [])}" if runs_alone(exit_rule) else str(policy)
        return _exits(session, "specexit", policy or "", exit_rule, smoother, f"exits by {by}")
    if session.thinking is None:
        return Choice("eagle3", None, (), f"the model does not think, so there is nothing to exit{_ignored(asked)}")
    if session.draft.signals == "none":
        return Choice("eagle3", None, (), f"the draft has no exit signals{_ignored(asked)}")
    return _beside(session, draft, exit_rule, smoother, asked)


def _named(session, draft, name, policy, exit_rule, smoother, asked: list[str]) -> Choice:
    if name not in EXITING:
        return Choice(name, None, (), f"--method asks for it{_ignored(asked)}")
    if session.draft is None:
        raise ValueError(f"Method {name!r} needs a draft model: give one with draft=FOLDER.")
    if runs_alone(exit_rule):
        why = f"--method asks for it; exits by the {exit_rule} rule{_ignored(['--policy'] if policy else [])}"
        return _exits(session, name, "", exit_rule, smoother, why)
    if policy is None:
        beside = policies_beside(draft)
        if not beside:
            raise ValueError(
                f"Method {name!r} needs an exit policy, and no policy.json lies in {draft} or beside it: give one with "
                "policy=FILE, or make one with launch.calibrate."
            )
        policy = _fitting(session, beside)[0] or beside[0]
    why = f"--method asks for it; exits by {policy}"
    return _exits(session, name, policy, exit_rule, smoother, why)


def _beside(session, draft, exit_rule, smoother, asked: list[str]) -> Choice:
    """By what lies beside the draft."""
    beside = policies_beside(draft)
    fitting, reason = _fitting(session, beside)
    if fitting:
        return _exits(session, "specexit", fitting, exit_rule, smoother, f"exits by {fitting}")
    missing = "no policy.json lies with the draft; launch.calibrate makes one, --policy names one"
    return Choice("eagle3", None, (), f"no exit, since {reason or missing}{_ignored(asked)}")


def _exits(session: Session, name: str, path: str | Path, exit_rule, smoother, why: str) -> Choice:
    told: list[str] = []
    policy, kinds = read_policy(session, path, exit_rule, smoother, told.append)
    return Choice(name, policy, kinds, why, told[0] if told else None, None if runs_alone(exit_rule) else Path(path))


def _fitting(session: Session, paths: list[Path]) -> tuple[Path | None, str]:
    """The first policy that was made for this draft, and what is wrong with the first otherwise ("" without any)."""
    reasons = []
    for path in paths:
        try:
            read_policy(session, path)
        except ValueError as error:
            reasons.append(str(error))
        else:
            return path, ""
    return None, reasons[0] if reasons else ""


def _flags(policy, exit_rule, smoother) -> dict:
    return {"--policy": policy, "--exit_rule": exit_rule, "--smoother": smoother}


def _ignored(asked: list[str]) -> str:
    return f"; {', '.join(asked)} not used" if asked else ""
