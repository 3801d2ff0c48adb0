"""A policy and what it was made for: bound to a session, held against a run, carried along when its draft is exported."""

import dataclasses
from pathlib import Path

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.session import Session, chat_ids, is_thinking
from specexit_jax.engine.thinking import THINK
from specexit_jax.exits.conditions import Conditions, SamplingConditions, ThinkingMarks, differences
from specexit_jax.exits.policy_file import PolicyFile, load_policy
from specexit_jax.models.checkpoints.content import draft_digest
from specexit_jax.models.config import DraftConfig
from specexit_jax.storage.identity import same


def bound(
    file: PolicyFile, session: Session, sampling: Sampling | None = None, max_new_tokens: int | None = None
) -> PolicyFile:
    """The policy, saying that it was made for this session, its draft, and these settings (None: the session's own)."""
    return dataclasses.replace(
        file, draft=str(session.draft_digest), made_for=made_for(file, session, sampling, max_new_tokens)
    )


def made_for(
    file: PolicyFile, session: Session, sampling: Sampling | None = None, max_new_tokens: int | None = None
) -> Conditions:
    """What a run of this policy is. sampling, max_new_tokens: the session's own where they are not given."""
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
        thinking=ThinkingMarks(_opening(session), tuple(int(token) for token in session.end_think_ids)),
    )


def uncovered(
    file: PolicyFile,
    session: Session,
    name: str | Path = "policy.json",
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
) -> str | None:
    """One sentence where a run under this policy is not what it was made for, None where it is; name: of the policy.

    sampling, max_new_tokens: of the run, the session's own where they are not given.
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
    """The policy.json in a draft's folder, and the one beside it, where launch.calibrate leaves it, as far as they are there."""
    return [path for path in (folder / "policy.json", folder.parent / "policy.json") if path.is_file()]


def carried(path: Path, source: Path, config: DraftConfig, written: Path) -> PolicyFile:
    """The policy of the draft in `source`, for the same draft as it was written to another folder; config: of the draft.

    Raises ValueError where it was made for another draft.
    """
    file = load_policy(path)
    for own in dict.fromkeys((config.own_embedding, False)):  # the table in the file may be the target's
        if own or config.hidden_size == config.target_hidden_size:
            one = dataclasses.replace(config, own_embedding=own)
            if same(draft_digest(source, one), file.draft):
                return dataclasses.replace(file, draft=str(draft_digest(written, one)))
    return load_policy(path, draft_digest(source, config))  # refuses it


def _opening(session: Session) -> str | None:
    """The text in which the thinking of a chat prompt begins."""
    if session.tokenizer is None or not session.tokenizer.chat_template:
        return None
    ids = chat_ids(session, "?")
    if not is_thinking(session, ids):
        return None
    text = session.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return THINK + text.rpartition(THINK)[2]
