"""The settings that a split's traces were sampled under: a policy calibrated on them holds only for those."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import bound
from specexit_jax.engine.session import Session
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.storage.identity import same
from specexit_jax.storage.shards import settings_of


def binder(session: Session, folder: Path, max_new_tokens: int) -> Callable[[PolicyFile], PolicyFile]:
    """Returns a function that records in a policy what it was calibrated for: the session's weights, and the sampling
    and lengths of the split's traces.

    max_new_tokens, and the session's sampling, are used if rollout.json does not record them. Raises ValueError if
    another target wrote the traces.
    """
    settings, sampling, most = _sampled(session, folder, max_new_tokens)
    recorded = str(settings.get("target", "")).rpartition(" ")[2]
    if recorded and session.target_digest and not same(session.target_digest, recorded):
        raise ValueError(
            f"the traces of {folder} are another target's ({recorded[:19]}…, this one is {session.target_digest[:19]}…): "
            "calibrate with the target that wrote them, or roll out anew in a new workdir"
        )
    return lambda file: bound(file, session, sampling, most)


def unlike(session: Session, folder: Path, max_new_tokens: int) -> str | None:
    """A sentence if a split was sampled under other settings than this session's, so that a certificate from it does
    not cover this run; else None."""
    _, sampling, most = _sampled(session, folder, max_new_tokens)
    before = dataclasses.asdict(sampling) | {"max_new_tokens": most}
    now = dataclasses.asdict(session.sampling) | {"max_new_tokens": max_new_tokens}
    found = [f"{name} {now[name]} instead of {value}" for name, value in before.items() if now[name] != value]
    return f"what is certified on {folder} does not cover this run: {', '.join(found)}." if found else None


def _sampled(session: Session, folder: Path, max_new_tokens: int) -> tuple[dict[str, Any], Sampling, int]:
    """rollout.json's settings, and the sampling and length of the split's traces; the session's where they are not
    recorded."""
    settings = settings_of(folder, "rollout")
    sampling = Sampling(**settings["sampling"]) if "sampling" in settings else session.sampling
    return settings, sampling, settings.get("max_new_tokens") or max_new_tokens
