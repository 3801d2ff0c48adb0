"""What a policy was made for: recorded when it is made, compared with a run, kept when its draft is exported."""

import dataclasses
from pathlib import Path

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.session import Session
from specexit_jax.exits.conditions import Conditions, SamplingConditions, ThinkingMarks, differences
from specexit_jax.exits.policy_file import PolicyFile, load_policy
from specexit_jax.models.checkpoints.content import draft_digest
from specexit_jax.models.config import DraftConfig
from specexit_jax.storage.identity import same


def bound(
    file: PolicyFile, session: Session, sampling: Sampling | None = None, max_new_tokens: int | None = None
) -> PolicyFile:
    """The policy, with the session, draft and settings that it was made for. sampling, max_new_tokens: None: the session's."""
    return dataclasses.replace(
        file, draft=str(session.draft_digest), made_for=made_for(file, session, sampling, max_new_tokens)
    )


def made_for(
    file: PolicyFile, session: Session, sampling: Sampling | None = None, max_new_tokens: int | None = None
) -> Conditions:
    """All that a run under this policy depends on. sampling, max_new_tokens: None: the session's."""
    sampling = sampling or session.sampling
    return Conditions(
        target=session.target_digest or "",
        draft=str(session.draft_digest or ""),
        sampling=SamplingConditions(
            **{field.name: getattr(sampling, field.name) for field in dataclasses.fields(SamplingConditions)}
        ),
        boundary_kinds=tuple(file.boundary_kinds),
        smoothing=file.smoothing,
        budget=file.budget,
        max_new_tokens=max_new_tokens or session.max_new_tokens,
        thinking=ThinkingMarks(session.opening, tuple(int(token) for token in session.end_think_ids)),
    )


def uncovered(
    file: PolicyFile,
    session: Session,
    name: str | Path = "policy.json",
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
) -> str | None:
    """One sentence if a run differs from what the policy was made for, else None.

    name: how the sentence calls the policy. sampling, max_new_tokens: of the run; None: the session's.
    """
    certified = file.certificate is not None
    if file.made_for is None:
        was = "certified" if certified else "calibrated"
        return (
            f"{name} does not say what it was {was} for (an earlier version wrote it), so nothing tells whether it holds for "
            "this run: launch.calibrate writes one that does."
        )
    found = differences(file.made_for, made_for(file, session, sampling, max_new_tokens))
    if certified and tuple(file.thresholds) != tuple(file.certificate.thresholds):
        found.append("thresholds that are not the certified ones")
    if not found:
        return None
    told = (
        "was calibrated for another run than this"
        if not certified
        else "has a certificate that does not cover this run"
    )
    return f"{name} {told}: {', '.join(found)}."


def policies_of(folder: Path) -> list[Path]:
    """The existing ones of the policy.json in a draft's folder and the one beside it, which launch.calibrate writes."""
    return [path for path in (folder / "policy.json", folder.parent / "policy.json") if path.is_file()]


def carried(path: Path, source: Path, config: DraftConfig, written: Path) -> PolicyFile:
    """The policy in `path` for a draft that was copied from the folder `source` to `written`. config: the draft's.

    Raises ValueError if the policy was made for another draft.
    """
    file = load_policy(path)
    for own in dict.fromkeys((config.own_embedding, False)):  # the embedding in the file may be the target's
        if own or config.hidden_size == config.target_hidden_size:
            one = dataclasses.replace(config, own_embedding=own)
            if same(draft_digest(source, one), file.draft):
                return dataclasses.replace(file, draft=str(draft_digest(written, one)))
    return load_policy(path, draft_digest(source, config))  # raises
