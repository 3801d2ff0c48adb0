"""Under which settings the traces of a split were sampled: what a policy that is calibrated on them holds for."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import bound
from specexit_jax.engine.session import Session
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.storage.identity import same
from specexit_jax.storage.shards import shard_files


def rollout_settings(folder: Path) -> dict[str, Any]:
    """The settings of a split's rollout.json, of whichever process; {} without one."""
    for path in shard_files(folder, "rollout", ".json"):
        try:
            return dict(json.loads(path.read_text())["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a report of this stage ({error}): mend or remove it.") from error
    return {}


def binder(session: Session, folder: Path, max_new_tokens: int) -> Callable[[PolicyFile], PolicyFile]:
    """Makes a policy say what it was calibrated for: this session's weights, and the sampling and lengths of the split's traces.

    max_new_tokens: where rollout.json does not say, as is the session's sampling. Raises ValueError where another target
    wrote the traces.
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
    """One sentence where a split was sampled otherwise than this session samples, so that what is certified on it does not
    cover what is decoded now; None where it was not."""
    _, sampling, most = _sampled(session, folder, max_new_tokens)
    before = dataclasses.asdict(sampling) | {"max_new_tokens": most}
    now = dataclasses.asdict(session.sampling) | {"max_new_tokens": max_new_tokens}
    found = [f"{name} {now[name]} instead of {value}" for name, value in before.items() if now[name] != value]
    return f"what is certified on {folder} does not cover this run: {', '.join(found)}." if found else None


def _sampled(session: Session, folder: Path, max_new_tokens: int) -> tuple[dict[str, Any], Sampling, int]:
    """rollout.json's settings, and the sampling and length of the split's traces: the session's where it does not say."""
    settings = rollout_settings(folder)
    sampling = Sampling(**settings["sampling"]) if "sampling" in settings else session.sampling
    return settings, sampling, settings.get("max_new_tokens") or max_new_tokens
